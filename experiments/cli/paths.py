"""Paths in a configuration: absolute, so that a run can be resumed from another folder than it was begun in.

A setting is a path if the type of its parameter says so: ``Path`` or another ``os.PathLike``, or a ``str`` that may be
something else too, annotated as ``Annotated[str, Path]``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from jsonargparse import Namespace

from experiments.cli.signatures import imported_class, parameters


def expand_home(word: str) -> str:
    """A word of a command line with ``~/`` expanded, as a shell does not in ``--flag=~/a`` and ``[~/a,~/b]``."""
    return re.sub(r"(?<![^=\[, ])~/", lambda _: f"{Path.home()}/", word)


def resolve_paths(config: Namespace) -> None:
    """Expand ``~`` in every path, and make it absolute if it is an argument of a class and there is such a file."""
    for name in ("ckpt_path", "trainer.default_root_dir", "best_checkpoint.dirpath"):
        if path := config.get(name):
            config[name] = os.path.expanduser(path)
    for class_path, arguments in _classes(config):
        for name, parameter in parameters(imported_class(class_path)).items():
            if isinstance(value := arguments.get(name), str | Path) and takes_a_path(parameter.annotation):
                path = Path(value).expanduser()
                arguments[name] = str(path.absolute() if path.exists() else path) if _is_local(value) else value


def takes_a_path(kind: Any) -> bool:
    """Whether the type of a parameter has a path among its alternatives."""
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return True
    return any(map(takes_a_path, (*get_args(kind), *getattr(kind, "__metadata__", ()))))


def _is_local(value: str | Path) -> bool:
    return "://" not in str(value)


def _classes(value: Any) -> Iterator[tuple[str, Namespace]]:
    """The class path and the arguments of each class in a configuration."""
    if isinstance(value, Namespace):
        class_path, arguments = value.get("class_path"), value.get("init_args")
        if isinstance(class_path, str) and isinstance(arguments, Namespace):
            yield class_path, arguments
        for item in vars(value).values():
            yield from _classes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _classes(item)
