"""The words of a command line in their order of precedence, with what a checkpoint says of its model among them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb
from typing import Any

from experiments.cli.consent import allow, flag_values
from experiments.cli.initial_weights import with_backbones
from experiments.cli.messages import is_for_people
from experiments.cli.read_config import read_config
from experiments.cli.recipes import config_paths
from experiments.cli.short_names import with_full_names
from experiments.cli.trusted_names import refusal
from experiments.errors import UsageError
from experiments.internals import RESTORING
from experiments.runs.directory import run_config
from lit_models.checkpoints import check_training_state, checkpoint_file, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.names import dotted_names
from lit_models.schema import SchemaError

CKPT_PATH_EXAMPLE = "--ckpt_path, such as runs/<experiment>/<run>"


@contextmanager
def naming_the_checkpoint(checkpoint: Path | None, data: Callable[[], Any]) -> Iterator[None]:
    """Turns what is raised while a checkpoint is restored into a sentence that names it.

    Of weights that do not fit it says that the ``data`` have other classes or channels, or else the first of torch's
    list.
    """
    try:
        yield
    except Exception as error:
        _, *mismatches = str(error).splitlines() or [""]
        if "loading state_dict" not in str(error) or not mismatches:
            if isinstance(error, SchemaError) or (_is_restoring(error) and not is_for_people(error)):
                reason = " ".join(f"{error}".split()) or type(error).__name__
                raise CheckpointError(
                    f"{checkpoint} does not fit what it is restored into: {shorten(reason, 200)}"
                ) from error
            raise
        if checkpoint and (reason := _other_data(checkpoint, data())):
            raise CheckpointError(reason) from error
        raise CheckpointError(
            f"{checkpoint} is of another network than the configuration: {shorten(mismatches[0], 150)}"
            + (f" (and {len(mismatches) - 1} more)" if len(mismatches) > 1 else "")
        ) from error


def _other_data(checkpoint: Path, data: Any) -> str:
    """In what ``data`` differ from those that the network of ``checkpoint`` was trained on; empty if in nothing."""
    hparams = read_checkpoint(checkpoint).get("hyper_parameters", {})
    known = {**((hparams.get("net") or {}).get("init_args") or {}), **hparams}
    for fact, what, mend in (
        ("num_classes", "classes", "; to train it on them, give it to `fathom fit` as --model.weights"),
        ("in_channels", "input channels", ""),
    ):
        before, now = known.get(fact), getattr(data, fact, None)
        if None not in (before, now) and before != now:
            return f"{checkpoint} is of a network with {before} {what}, and these data have {now}{mend}"
    return ""


def _is_restoring(error: BaseException) -> bool:
    """Whether it was raised on the way from a checkpoint into the parts of a run."""
    frames = walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in ("restore_epoch_means", *RESTORING) for frame, _ in frames)


def checkpoint_path(args: list[str]) -> Path | None:
    """The file that ``--ckpt_path`` means, the last one where there are several; of a run directory the best one."""
    return _parts(args)[1]


def flag_is_given(args: list[str], flag: str) -> bool:
    """Whether ``args`` have ``flag``, in either of its forms."""
    return any(word.partition("=")[0] == flag for word in args)


def in_order_of_precedence(args: list[str]) -> list[str]:
    """Config files first, then the model of ``--ckpt_path``, then the flags; later ones win.

    Without a config file, that of the run the checkpoint lies in is taken. Classes that ``args`` and the config files
    given there name may be imported from here on, see :mod:`experiments.cli.consent`.

    Raises:
        CheckpointError, FileNotFoundError: if the file is not a checkpoint.
        UsageError: if a file is not a configuration, or names a class of a package that the user did not name.
    """
    configs, checkpoint, flags = _parts(args)
    _allow_what_is_named(configs, flags)
    if checkpoint:
        if not configs and (config := run_config(checkpoint)):
            _check_names(config)
            configs.append(str(config))
        configs.append(model_config(checkpoint, args[0]))
    if not configs and not _needs_no_config(flags):
        needed = "--config, such as --config vanillanet_digits" if args[0] == "fit" else CKPT_PATH_EXAMPLE
        raise UsageError(f"fathom {args[0]} needs {needed}")
    ckpt_path = ["--ckpt_path", str(checkpoint)] if checkpoint else []
    return [*args[:1], *(word for config in configs for word in ("--config", config)), *flags, *ckpt_path]


def _needs_no_config(flags: list[str]) -> bool:
    names = {flag.partition("=")[0] for flag in flags}
    return any(name.endswith(".help") for name in names) or bool(names & {"-h", "--help", "--model", "--print_config"})


def allow_run(config: Path, overrides: list[str]) -> None:
    """Let the command line import what ``overrides`` name, and the parts of a run that ``config`` names.

    Raises:
        UsageError: if ``config``, that of a run to resume, names anything else.
    """
    configs, _, flags = _parts(["fit", *overrides])
    _allow_what_is_named(configs, flags)
    _check_names(config)


def _allow_what_is_named(configs: list[str], flags: list[str]) -> None:
    allow(dotted_names([*map(read_config, configs), *flag_values(flags)]))


def _check_names(config: Path) -> None:
    if reason := refusal(config, read_config(str(config))):
        raise UsageError(reason)


def _parts(args: list[str]) -> tuple[list[str], Path | None, list[str]]:
    """Config files, checkpoint, and all other flags with their values, classes by their import path."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    given, flags = parser.parse_known_args(args[1:])
    path = given.ckpt_path
    checkpoint = None if path in (None, "", "null") else _checkpoint_file(path)
    configs = [path for config in given.config for path in config_paths(config)]
    return configs, checkpoint, with_full_names(with_backbones(flags))


def _checkpoint_file(path: str) -> Path:
    if path in ("last", "best", "hpc", "registry"):
        raise UsageError(
            f"--ckpt_path {path} is looked for in the run's own directory, and a new run has none: give the directory"
            " or the file, such as runs/<experiment>/<run>/checkpoints/last.ckpt"
        )
    file = Path(path).expanduser()
    return checkpoint_file(file)


def model_config(path: Path, command: str) -> str:
    """The ``model`` part of a configuration, as a checkpoint has it, in JSON.

    Raises:
        CheckpointError: also if it names a class of a package that the user did not name, if its weights are not
            finite, and for ``fit`` if it holds no state of the training.
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
    if reason := refusal(path, hparams):
        raise CheckpointError(reason)
    if not arguments:
        return "{}"
    try:
        return json.dumps({"model": {"class_path": class_path, "init_args": arguments}})
    except TypeError as error:
        raise CheckpointError(f"{path} describes its model with more than plain settings: {error}") from error
