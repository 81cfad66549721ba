"""Errors for people: one sentence, without a traceback."""

from __future__ import annotations

import errno
import inspect
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches

OUTSIDE = "is no network, callback or the like from Fathom, torch, torchvision, torchmetrics, lightning or timm"

# Lines in which jsonargparse explains its type system, not what is wrong.
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value|Subclass types"
    r"|Not a valid subclass of|a class path \(str\)|a dict with|Expected a path but .* either not accessible or invalid"
    r"|Expected a dot import path string"
)
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list such as [a,b]",
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or above",
}
# What the flags of fit begin with.
_OF_FIT = ("config", "ckpt_path", "seed_everything", "model", "data", "trainer", "wandb")


def one_sentence(message: str, flags: Iterable[str] = _OF_FIT) -> str:
    """A message of several lines as one, without those that only describe types.

    What jsonargparse says of an argument becomes ``model.net.depth takes a whole number, not deep``.

    Args:
        message: of an error.
        flags: that there are, for one that there is not.
    """
    keys: list[str] = []
    class_path, given, reasons = "", "", []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ").strip()
        if key := re.fullmatch(r'Parser key "(.+)":', line):
            keys.append(key[1])
        elif named := re.fullmatch(r"Problem with given class_path '(.+)':", line):
            class_path = named[1]
        elif value := re.fullmatch(r"Given value: ([^\[{].*)", line):
            given = given or value[1]
        elif line and not _NOISE.search(line) and line not in reasons:
            reasons.append(line)
    return _rephrased(".".join(keys), class_path, given, reasons, flags)


def is_for_people(error: BaseException | None) -> bool:
    """Whether ``error`` is about what the user gave; anything else is a defect, which a traceback serves better."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from callbacks import MergeError, NonFiniteError
    from lit_models.errors import CheckpointError, NetworkError

    return isinstance(
        error, MisconfigurationException | CheckpointError | NetworkError | MergeError | NonFiniteError | OSError
    )


def os_sentence(error: OSError) -> str:
    """What the system refused, with the file and the mend where they are known."""
    reason = error.strerror or str(error)
    if "Original Traceback" in reason:  # of a worker process; the last line is the error
        reason = reason.strip().splitlines()[-1].partition(": ")[2]
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = f"{reason}: make room, and go on from the last checkpoint"
    return f"{error.filename}: {reason}" if error.strerror and error.filename else reason


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest of ``known``, or at all of them."""
    known = list(known)
    nearest = get_close_matches(word, known, 1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(known)}" if known else ""


def _rephrased(key: str, class_path: str, given: str, reasons: list[str], flags: Iterable[str]) -> str:
    text = " ".join(reasons)
    where = f"{key}: " if key else ""
    if denied := re.search(r"Importing '(\S+)' is not allowed", text):
        return f"{where}{denied[1]} {OUTSIDE}: name it yourself, in a --config or a flag, if you trust it"
    if option := re.search(r"Option '(\S+)' is not accepted", text):
        return f"{where}{class_path} has no option {option[1]}{did_you_mean(option[1], arguments(class_path))}"
    if option := re.search(r"Subcommand '(\S+)' does not accept option '(\S+)'", text):
        return f"fathom {option[1]} has no option {option[2]}{_near(option[2], flags)}"
    if flag := re.match(r"unrecognized arguments: (--[^\s=]+)", text):
        return f"there is no flag {flag[1]}{_near(flag[1].removeprefix('--'), flags)}"
    if abstract := re.search(r"Expected an instantiatable class, but (\w+)\.\S+ is abstract", text):
        return f"{key} needs its class: name it too, as in --{key} {abstract[1]}.CLASS"
    if refused := re.search(r"Not of type (\w+): (?:(?:(\S+) )?does not conform|invalid literal .*: '(.*)')", text):
        return f"{key} takes {_TYPES.get(refused[1], refused[1])}, not {refused[2] or refused[3] or given}"
    if absent := re.search(r"No module named '(\S+)'|module '\S+' has no attribute '(\S+)'", text):
        module, _, name = class_path.rpartition(".")
        known = getattr(sys.modules.get(module), "__all__", [])
        missing = f"no module {absent[1]}" if absent[1] else f"no class {class_path}{did_you_mean(name, known)}"
        return f"{where}there is {missing}"
    if reasons and all(reason.startswith("Expected a <class") or "typing.Literal" in reason for reason in reasons):
        value = re.search(r"Got value: (.*)", text)
        return f"{key} takes {_expected(reasons)}, not {value[1] if value else given or 'this'}"
    return where + text


def _expected(reasons: list[str]) -> str:
    """Types and choices in words."""
    kinds, choices = [], []
    for reason in reasons:
        if literal := re.search(r"typing\.Literal\[(.*?)\]", reason):
            choices += [choice.strip().strip("'") for choice in literal[1].split(",")]
        elif kind := re.search(r"<class '(\w+)'>", reason):
            kinds.append(_TYPES.get(kind[1], f"a {kind[1]}"))
    if choices:
        return "one of " + ", ".join(choices)
    return " or ".join(kinds) or "another type"


def _near(option: str, flags: Iterable[str]) -> str:
    """A hint for an option such as ``trainer.max_epoch``."""
    import lightning as L

    from experiments.runs.wandb_logger import WandbOptions

    group, _, name = option.partition(".")
    groups = {"trainer": L.Trainer, "wandb": WandbOptions}
    if group in groups:
        return did_you_mean(name, (f for f in inspect.signature(groups[group]).parameters if f != "self"))
    return did_you_mean(group, flags)


def arguments(class_path: str) -> list[str]:
    """What the constructor of an imported class takes, with what it hands on to its base classes; [] where unknown."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    names: list[str] = []
    for base in getattr(kind, "__mro__", ()):
        if constructor := vars(base).get("__init__"):
            parameters = list(inspect.signature(constructor).parameters.values())[1:]
            names += [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return list(dict.fromkeys(names))
