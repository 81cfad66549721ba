"""Names of classes and functions in settings that came from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

ROOMS = ("lit_models", "datamodules", "callbacks")
"""The packages of this project whose classes a run may name."""

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def class_paths(settings: Any) -> Iterator[str]:
    """Every ``class_path`` in nested dicts and lists."""
    for key, text in _texts(settings):
        if key in ("class_path", "_class_path"):
            yield text


def dotted_names(settings: Any) -> Iterator[str]:
    """Every text that could be the import path of something, class paths among them."""
    for _, text in _texts(settings):
        if _DOTTED.fullmatch(text):
            yield text


def package(name: str) -> str:
    """The top-level package of an import path."""
    return name.partition(".")[0]


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """The names in ``known`` that are most like ``word``, for an error message; ``otherwise`` if none is."""
    return ", ".join(get_close_matches(word, list(known), 3)) or otherwise


def with_current_names(settings: Any) -> Any:
    """``settings`` with every class that has moved to another module under its public name.

    Until version 0.2 the modules of each package lay directly in it, and files of that time say
    ``lit_models.resnet.CIFARResNet``. The package has the class under its own name, wherever the module is.
    """
    if isinstance(settings, str):
        return _current_name(settings)
    if isinstance(settings, dict):
        return {name: with_current_names(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return type(settings)(map(with_current_names, settings))
    return settings


def _current_name(name: str) -> str:
    if not _DOTTED.fullmatch(name):
        return name
    root, *modules, last = name.split(".")
    if root not in ROOMS or len(modules) != 1 or find_spec(f"{root}.{modules[0]}"):
        return name
    return f"{root}.{last}"


def _texts(value: Any, key: Any = None) -> Iterator[tuple[Any, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
