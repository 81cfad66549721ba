"""Choices by name, which the command line checks and Python does not."""

from __future__ import annotations

from typing import Any, get_args

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ``MisconfigurationException`` unless ``value`` is one of ``choices``, a ``Literal``."""
    if value not in get_args(choices):
        raise MisconfigurationException(f"{name} is {value!r}; give one of {', '.join(get_args(choices))}.")
