"""What the user has named in this command; nothing else outside Fathom is imported.

A package given as ``--import``, and every class that a flag or a file given as ``--config`` names, is the user's
decision. A checkpoint and the ``config.yaml`` beside it are read without being asked for, so the names in them
decide nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from experiments.errors import UsageError

TRUSTED = {
    *("lit_models", "datamodules", "callbacks", "experiments"),
    *("lightning", "torch", "torchvision", "torchmetrics", "timm"),
}
"""The packages that Fathom is made of."""

_names: set[str] = set()


def take_imports(args: list[str]) -> list[str]:
    """Import the packages given as ``--import``, for this command alone, and return the other ``args``.

    Raises:
        UsageError: for a package that is not there.
    """
    _names.clear()
    rest, words = [], iter(args)
    for word in words:
        flag, equals, name = word.partition("=")
        if flag != "--import":
            rest.append(word)
            continue
        name = name if equals else next(words, "")
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError("--import takes the name of a package of yours, such as --import my_lab")
        _import(name)
        _names.add(name)
    if _names:
        allow(_names)
    return rest


def _import(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the user's package needs
        raise UsageError(
            f"--import {name}: there is no package {error.name} in this folder or among the installed ones"
        ) from error


def allow(names: Iterable[str]) -> None:
    """Let the command line import by name from the packages of ``names`` and from those of Fathom, and nothing else.

    It is a setting of jsonargparse, and so it holds for a name in any place: a class path, a function, another file.
    """
    from jsonargparse import set_parsing_settings

    _names.update(names)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=sorted(TRUSTED | user_packages()))


def names_of_user() -> frozenset[str]:
    """The import paths that the user has named."""
    return frozenset(_names)


def user_packages() -> set[str]:
    """The top-level packages of what the user has named."""
    return {name.partition(".")[0] for name in _names}


def import_classes(class_paths: Iterable[str]) -> None:
    """Import the modules of those ``class_paths`` that lie in a package the user has named."""
    for class_path in class_paths:
        module, _, _ = class_path.rpartition(".")
        if module.partition(".")[0] in user_packages() and module not in sys.modules:
            _import(module)


def flag_values(flags: Iterable[str]) -> Iterator[Any]:
    """The values of flags, parsed as YAML if they are YAML and otherwise as text."""
    import yaml

    from experiments.runs.safe_yaml import read_yaml

    for word in flags:
        text = word.partition("=")[2] if word.startswith("-") else word
        try:
            yield read_yaml(text)
        except yaml.YAMLError:
            yield text
