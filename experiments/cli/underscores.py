"""Flags with dashes, as most programs write them."""

from __future__ import annotations

from collections.abc import Container


def with_underscores(word: str, parameters: Container[str]) -> str:
    """``--group-by=lr`` as ``--group_by=lr``, where that is a parameter."""
    flag, equals, value = word.partition("=")
    name = flag.removeprefix("--").replace("-", "_")
    return f"--{name}{equals}{value}" if flag.startswith("--") and name in parameters else word
