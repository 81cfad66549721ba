"""Where a run keeps what it writes: ``runs/<experiment>/<time>-<id>/``."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UsageError

RUN_DIRECTORY = "<run directory>"
"""What a configuration says for the directory of the run itself, which has its name later."""


def new_run_directory(root: Path, experiment: str) -> Path:
    """A directory no other run has. It is made by the first that writes into it."""
    return root / experiment / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def open_no_link(path: str | Path, flags: int) -> int:
    """A file of a run as a descriptor, never one elsewhere that a symbolic link leads to; an ``opener`` of ``open``."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        reason = "it is a symbolic link, which no run writes through: remove it"
        raise OSError(errno.ELOOP, reason, str(path)) from error


def experiment_name(configs: Sequence[Any]) -> str:
    """The stem of the last configuration file; for the resolved one of a run, the name of that run's experiment."""
    files = [Path(str(config)) for config in configs if config is not None]
    for path in reversed(files):
        if path.name == "config.yaml":
            from experiments.runs.fits import settings_of

            name = settings_of(path.parent).get("name")  # what the user called it with --name
            return name if name and isinstance(name, str) else path.resolve().parent.parent.name
        if path.suffix in (".yaml", ".yml"):
            return path.stem
    return "unnamed"


def checked_name(name: str) -> str:
    """``name`` as that of an experiment, whose runs lie in a folder of that name.

    Raises:
        UsageError: if it cannot be that of a folder.
    """
    if not name.strip() or name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"--name {name!r} has to be the name of a folder, such as --name narrow")
    return name


def run_config(checkpoint: Path) -> Path | None:
    """The resolved configuration of the run that wrote ``checkpoint``, if it lies in its run directory."""
    for directory in checkpoint.resolve().parents[:2]:
        if (directory / "config.yaml").is_file():
            return directory / "config.yaml"
    return None
