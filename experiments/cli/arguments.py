"""The words of a command line in their order of precedence, with what a checkpoint says of its model among them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from experiments.cli.messages import OUTSIDE, is_for_people
from experiments.cli.read_config import read_config
from experiments.cli.recipes import recipe_path
from experiments.cli.trusted_names import first_untrusted, flag_values, names_of_user, trust
from experiments.runs.directory import run_config
from lit_models.checkpoints import check_training_state, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.schema import SchemaError

A_CHECKPOINT = "--ckpt_path, such as runs/<experiment>/<run>/checkpoints/best.ckpt"
_TRUST = "if you trust it, add --config"


@contextmanager
def naming_the_checkpoint(args: list[str]) -> Iterator[None]:
    """Turns what is raised while a checkpoint is restored into a sentence that names it.

    Of torch's list of every weight that does not fit, that is the first.
    """
    try:
        yield
    except Exception as error:
        _, *mismatches = str(error).splitlines() or [""]
        if "loading state_dict" not in str(error) or not mismatches:
            if isinstance(error, SchemaError) or (_is_restoring(error) and not is_for_people(error)):
                reason = " ".join(f"{error}".split()) or type(error).__name__
                raise CheckpointError(
                    f"{checkpoint_path(args)} does not fit what it is restored into: {shorten(reason, 200)}"
                ) from error
            raise
        raise CheckpointError(
            f"{checkpoint_path(args)} is of another network than the configuration: {shorten(mismatches[0], 150)}"
            + (f" (and {len(mismatches) - 1} more)" if len(mismatches) > 1 else "")
        ) from error


def _is_restoring(error: BaseException) -> bool:
    """Whether it was raised on the way from a checkpoint into the parts of a run."""
    frames = walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in ("restore_epoch_means", *_RESTORING) for frame, _ in frames)


_RESTORING = ("restore_training_state", "_restore_modules_and_callbacks")  # of Lightning


def checkpoint_path(args: list[str]) -> str | None:
    """The value of ``--ckpt_path``, the last one where there are several."""
    return _parts(args)[1]


def in_order_of_precedence(args: list[str]) -> list[str]:
    """Config files first, then the model of ``--ckpt_path``, then the flags; later ones win.

    Without a config file, that of the run the checkpoint lies in is taken. From here on the command line imports by
    name only what Fathom is made of, and from packages that ``args`` and the config files given there name.

    Raises:
        CheckpointError, FileNotFoundError: for a checkpoint that is none.
        MisconfigurationException: for a config file that is none, and for one that names what the user did not.
    """
    configs, checkpoint, flags = _parts(args)
    named = names_of_user([*map(read_config, configs), *flag_values(flags)])
    if checkpoint in ("last", "best", "hpc", "registry"):
        raise MisconfigurationException(
            f"--ckpt_path {checkpoint} is looked for in the run's own directory, and a new run has none: give the file,"
            " such as runs/<experiment>/<run>/checkpoints/last.ckpt"
        )
    if checkpoint and checkpoint != "null":
        if not configs and (config := run_config(Path(checkpoint))):
            _check_names(config, named)
            configs.append(str(config))
        configs.append(model_config(checkpoint, args[0], named))
    trust(named)
    if not configs and not {flag.partition("=")[0] for flag in flags} & {"-h", "--help", "--model", "--print_config"}:
        needed = "--config, such as --config vanillanet_digits" if args[0] == "fit" else A_CHECKPOINT
        raise MisconfigurationException(f"fathom {args[0]} needs {needed}")
    ckpt_path = ["--ckpt_path", checkpoint] if checkpoint else []
    return [*args[:1], *(word for config in configs for word in ("--config", config)), *flags, *ckpt_path]


def trust_run(config: Path, overrides: list[str]) -> None:
    """Let the command line import by name only what Fathom is made of, and from packages that ``overrides`` name.

    Raises:
        MisconfigurationException: where ``config``, that of a run to go on with, names anything else.
    """
    configs, _, flags = _parts(["fit", *overrides])
    named = names_of_user([*map(read_config, configs), *flag_values(flags)])
    _check_names(config, named)
    trust(named)


def _check_names(config: Path, named: set[str]) -> None:
    if foreign := first_untrusted(read_config(str(config)), named):
        raise MisconfigurationException(f"{config} names {foreign}, which {OUTSIDE}: {_TRUST} {config}")


def _parts(args: list[str]) -> tuple[list[str], str | None, list[str]]:
    """Config files, checkpoint, and all other flags with their values."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    given, flags = parser.parse_known_args(args[1:])
    return [recipe_path(config) for config in given.config], given.ckpt_path, flags


def model_config(path: str, command: str, named: set[str]) -> str:
    """The ``model`` part of a configuration, as a checkpoint has it, in JSON.

    Raises:
        CheckpointError: also where it names a class outside of Fathom and ``named``, where its weights are not
            finite, and for ``fit`` where it holds no state of the training.
    """
    checkpoint = read_checkpoint(path)
    if broken := [name for name, value in checkpoint["state_dict"].items() if not value.isfinite().all()]:
        raise CheckpointError(
            f"{path} holds {broken[0]} that is not finite: its training diverged; take an earlier one"
        )
    if command == "fit":
        check_training_state(path, checkpoint)
    hparams = checkpoint.get("hyper_parameters", {})
    class_path = hparams.get("_class_path", "lit_models.ImageClassifier")
    arguments = {name: value for name, value in hparams.items() if not name.startswith("_")}
    if foreign := first_untrusted({**arguments, "class_path": class_path}, named):
        raise CheckpointError(f"{path} asks for {foreign}, which {OUTSIDE}: {_TRUST} a file that names it")
    if not arguments:
        return "{}"
    try:
        return json.dumps({"model": {"class_path": class_path, "init_args": arguments}})
    except TypeError as error:
        raise CheckpointError(f"{path} describes its model with more than plain settings: {error}") from error
