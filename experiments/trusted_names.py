"""Nothing is imported because a file says so: which names a checkpoint, and the configuration beside it, may use.

A class that the user names, in a flag or in a file given as ``--config``, is the user's decision. A checkpoint brings
names of its own, and so does the configuration of its run, which is read without being asked for: they may name what
Fathom is made of, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from lit_models.names import class_paths, dotted_names, package

TRUSTED = {
    *("lit_models", "datamodules", "callbacks", "experiments"),
    *("lightning", "torch", "torchvision", "torchmetrics", "timm"),
}


def packages_named(settings: Iterable[Any]) -> set[str]:
    """The packages of everything in ``settings`` that could be the name of a class."""
    return {package(name) for name in dotted_names(list(settings))}


def first_untrusted(settings: Any, packages: set[str]) -> str | None:
    """The first class in ``settings`` that lies neither in ``packages`` nor in what Fathom is made of."""
    return next((name for name in class_paths(settings) if package(name) not in TRUSTED | packages), None)


def trust(packages: set[str]) -> None:
    """Let the command line import by name from ``packages`` and from what Fathom is made of, and nothing else.

    Whatever the way in which a name comes to the parser, as a class path, a function or in yet another file.
    """
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=sorted(TRUSTED | packages))


def flag_values(flags: Iterable[str]) -> Iterator[Any]:
    """What follows the names of flags, read as YAML where it is."""
    for word in flags:
        text = word.partition("=")[2] if word.startswith("-") else word
        try:
            yield yaml.safe_load(text)
        except yaml.YAMLError:
            yield text
