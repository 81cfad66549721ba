"""Recipes and results by paper, the command line, runs on disk, commands, analyses, benchmarks, notebooks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.cli.load_run import load_run

__version__ = "0.2.0"
__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("experiments.cli.load_run"), name)  # needs torch, which no command waits for
