"""Errors for people: one sentence, without a traceback."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from textwrap import shorten
from traceback import walk_tb

from experiments.cli.signatures import imported_class, parameters
from experiments.errors import UsageError

# Lines in which jsonargparse explains its type system, not what is wrong.
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value|Subclass types"
    r"|a class path \(str\)|a dict with|Expected a path but .* either not accessible or invalid"
)
# Lines that say of one alternative of a type that the value is none.
_ALTERNATIVE = re.compile(r"Expected a (<class|typing\.Literal|dot import)|Not a valid subclass of|Type \S+ .*expects")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "a list such as [a,b]",
    "Path": "a path",
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or above",
}
FIT_FLAGS = ("config", "ckpt_path", "seed_everything", "name", "import", "model", "data", "trainer", "wandb")
"""What the flags of ``fathom fit`` begin with."""


@dataclass
class _Problem:
    """What jsonargparse says of an argument."""

    key: str
    """The setting, such as ``model.net.depth``."""
    class_path: str
    """The class that was given for it."""
    given: str
    """The value that was given for it."""
    flags: Iterable[str]
    """The flags that there are."""

    @property
    def where(self) -> str:
        return f"{self.key}: " if self.key else ""

    @property
    def parameters(self) -> Iterable[str]:
        return parameters(imported_class(self.class_path))


# Each pattern in what jsonargparse says, and the sentence in its place. The first that fits is taken.
_SENTENCES: tuple[tuple[str, Callable[[re.Match[str], _Problem], str]], ...] = (
    (
        r"Importing '(([^.']+)\S*)' is not allowed",
        lambda m, p: f"{p.where}{m[1]} is not part of Fathom: if you trust it, add --import {m[2]}",
    ),
    (
        r"Option '(\S+)' is not accepted",
        lambda m, p: f"{p.where}{p.class_path} has no option {m[1]}{did_you_mean(m[1], _others(m[1], p.parameters))}",
    ),
    (
        r"Subcommand '(\S+)' does not accept option '(\S+)'",
        lambda m, p: f"fathom {m[1]} has no option {m[2]}{_nearest_flag(m[2], p.flags)}",
    ),
    (
        r"^unrecognized arguments: --([^\s=]+)",
        lambda m, p: f"there is no flag --{m[1]}{_nearest_flag(m[1], p.flags)}",
    ),
    (
        r"Expected an instantiatable class, but (\w+)\.\S+ is abstract",
        lambda m, p: f"{p.key} needs its class: name it too, as in --{p.key} {m[1]}.CLASS",
    ),
    (
        r"Not of type (\w+): (?:(?:(\S+) )?does not conform|invalid literal .*: '(.*)'|expected str)",
        lambda m, p: f"{p.key} takes {_TYPES.get(m[1], m[1])}, not {m[2] or m[3] or p.given}",
    ),
    (
        r"(?:--(\S+)\.help: )?Expected a dot import path string: (\S+)",
        lambda m, p: f"{p.where}there is no class {m[2]}{did_you_mean(m[2], _classes_for(m[1] or p.key))}",
    ),
    (
        r"^(argument of type '\w+' is not iterable|unhashable type)",
        lambda m, p: f"{p.key}.class_path takes the name of a class",
    ),
    (
        r"^Subclasses are disabled for (\w+)",
        lambda m, p: f"{p.where}{m[1]} takes settings by name, and no class_path",
    ),
    (
        r"^'\w+' object has no attribute 'keys'$",
        lambda m, p: f"{p.key}.init_args takes settings by name, such as --{p.key}.NAME VALUE",
    ),
    (
        r"Not of type timedelta",
        lambda m, p: f"{p.key} takes days:hours:minutes:seconds, such as 00:12:00:00, not {p.given}",
    ),
    (
        r"^Unable to load config '(.*?)'",
        lambda m, p: f"{p.key} takes settings by name, such as --{p.key}.NAME VALUE, not {m[1]}",
    ),
    (
        r"the following arguments are required: (?:(?:fit|validate|test|predict)\.)?(\S+)$",
        lambda m, p: f"{f'{p.key}.' * bool(p.key)}{m[1]} is required, and has no value",
    ),
    (
        r"^argument (\S+): expected (?:one|at least one) argument$",
        lambda m, p: f"{m[1]} needs a value; one that begins with a dash is written behind =",
    ),
    (r"No module named '(\S+)'", lambda m, p: f"{p.where}there is no module {m[1]}"),
    (
        r"module '\S+' has no attribute '\S+'",
        lambda m, p: f"{p.where}there is no class {p.class_path}{_nearest_class(p.class_path)}",
    ),
)


def one_sentence(message: str, flags: Iterable[str] = FIT_FLAGS) -> str:
    """A message of several lines as one, without those that only describe types.

    What jsonargparse says of an argument becomes ``model.net.depth takes a whole number, not deep``.

    Args:
        message: of an error.
        flags: the flags that there are, to find the one nearest to an unknown flag.
    """
    keys: list[str] = []
    reasons: list[str] = []
    class_path, given, indent, nested = "", "", 0, 0
    for indented in message.splitlines():
        line = indented.strip().removeprefix("- ").strip()
        depth = len(indented) - len(indented.lstrip())
        if key := re.fullmatch(r'Parser key "(.+)":', line):
            keys.append(key[1])
            reasons, indent = [], depth
        elif named := re.fullmatch(r"Problem with given class_path '(.+)':", line):
            if class_path and depth <= nested:
                break  # another alternative, such as that the class is the base class
            class_path, nested = named[1], depth
        elif value := re.fullmatch(r"Given value:(?! NestedArg| Namespace) ?(.*)", line):
            given = given or shorten(value[1], 80) or "''"
        elif line and not _NOISE.search(line) and line not in reasons and depth >= indent:
            reasons.append(line)
    specific = [reason for reason in reasons if not _ALTERNATIVE.match(reason)]
    text = " ".join(specific or reasons)
    problem = _Problem(".".join(keys), class_path, given, flags)
    choices = not specific and "typing.Literal" in text
    for pattern, sentence in _SENTENCES:
        if not choices and (match := re.search(pattern, text)):
            return sentence(match, problem)
    if reasons and not specific:
        value = re.search(r"Got value: (.*?)(?= Not a valid subclass| Expected a|$)", text)
        refused = value[1] if value else given
        return f"{problem.key} takes {_expected(reasons)}" + f", not {refused}" * bool(refused)
    return problem.where + text


def is_for_people(error: BaseException | None) -> bool:
    """Whether ``error`` is about what the user gave; anything else is a defect, which a traceback serves better."""
    if isinstance(error, UsageError | OSError):
        return True
    if "lightning" not in sys.modules:  # which takes seconds, and without it none of the following can be raised
        return False
    if isinstance(error, RuntimeError | ValueError | ImportError) and _was_raised_by("lightning", error):
        return True
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from callbacks import MergeError, NonFiniteError
    from lit_models.errors import CheckpointError, NetworkError

    return isinstance(error, MisconfigurationException | CheckpointError | NetworkError | MergeError | NonFiniteError)


def _was_raised_by(package: str, error: BaseException) -> bool:
    """Whether the line that raised ``error`` is in ``package``, and not in what it calls."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0] == package


def os_sentence(error: OSError) -> str:
    """What the system refused, with the file and how to fix it if they are known."""
    reason = error.strerror or str(error)
    if "Original Traceback" in reason:  # of a worker process; the last line is the error
        reason = reason.strip().splitlines()[-1].partition(": ")[2]
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        reason = f"{reason}: make room, and go on from the last checkpoint"
    return f"{error.filename}: {reason}" if error.strerror and error.filename else reason


def _others(word: str, known: Iterable[str]) -> list[str]:
    """``known`` without ``word``, which the constructor of a base class may take and this class fix."""
    return [name for name in known if name != word]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest of ``known``, or at all of them if none is near and they are at most twelve."""
    known = list(known)
    nearest = {name.lower(): name for name in reversed(known)}
    if close := get_close_matches(word.lower(), nearest, 1, cutoff=0.5):
        return f"; did you mean {nearest[close[0]]}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= 12 else ""


def _expected(reasons: list[str]) -> str:
    """Types and choices in words."""
    kinds, choices = [], []
    if any(reason.startswith(("Not a valid subclass", "Expected a dot import")) for reason in reasons):
        kinds.append("a class, by its name or as class_path with init_args,")
    for reason in reasons:
        if literal := re.search(r"typing\.Literal\[(.*?)\]", reason):
            choices += [choice.strip().strip("'") for choice in literal[1].split(",")]
        elif kind := re.search(r"<class '(\w+)'>", reason):
            kinds.append(_TYPES.get(kind[1], f"a {kind[1]}"))
    if choices:
        return "one of " + ", ".join(choices)
    return " or ".join(kinds).removesuffix(",") or "another type"


def _nearest_flag(flag: str, flags: Iterable[str]) -> str:
    """A hint for an unknown flag such as ``trainer.max_epoch``."""
    group, _, name = flag.partition(".")
    groups = {"trainer": "lightning.Trainer", "wandb": "experiments.runs.wandb_logger.WandbOptions"}
    if group in groups:
        return did_you_mean(name, parameters(imported_class(groups[group])))
    return did_you_mean(group, flags)


def _nearest_class(class_path: str) -> str:
    """A hint for a class that its module does not have."""
    module, _, name = class_path.rpartition(".")
    return did_you_mean(name, getattr(sys.modules.get(module), "__all__", []))


def _classes_for(key: str) -> list[str]:
    """The classes of Fathom that a setting takes."""
    from experiments.cli.short_names import FOLDERS, known_classes

    setting = key.rpartition(".")[2]
    return list(known_classes(setting)) if setting in FOLDERS else []
