"""Errors about what the user gave, each with one sentence that says how to fix it.

They are ``ValueError``s of this package, so that a network needs torch alone.
"""

from __future__ import annotations

from typing import Any, get_args


class NetworkError(ValueError):
    """Arguments that no network can be built from, or images or an analysis that it cannot take."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this project, or not of this network. The message names the file."""


def check_choice(name: str, value: object, choices: Any, error: type[Exception] = NetworkError) -> None:
    """Raises ``error`` unless ``value`` is one of ``choices``, a ``Literal``: Python does not check it."""
    if value not in get_args(choices):
        raise error(f"{name} is {value!r}; give one of {', '.join(get_args(choices))}.")
