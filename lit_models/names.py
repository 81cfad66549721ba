"""Names of classes and functions in settings that came from a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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


def _texts(value: Any, key: Any = None) -> Iterator[tuple[Any, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
