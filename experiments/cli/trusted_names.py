"""Which names a checkpoint, and the configuration beside it, may use.

They may name networks, data modules, callbacks and other parts of a run, of the packages that Fathom is made of and of
those that the user has named (:mod:`experiments.cli.consent`). They may not name functions, which would be called with
arguments from the same file, nor other ways to read a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import lightning as L
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import ClusterEnvironment, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn

from experiments.cli.consent import TRUSTED, import_classes, names_of_user, user_packages
from lit_models.names import class_paths, dotted_names, package

PARTS_OF_A_RUN = (
    *(nn.Module, L.LightningDataModule, L.Callback, Logger),
    *(Accelerator, ClusterEnvironment, LayerSync, Precision, Profiler, Strategy),
)


def refusal(path: str | Path, settings: dict[str, Any]) -> str | None:
    """Why ``settings``, read from the file ``path``, may not be used; ``None`` if they may.

    The user's own modules that they name are then imported.
    """
    # Lightning takes no other instantiator than its own.
    settings = {name: value for name, value in settings.items() if name != "_instantiator"}
    if name := first_untrusted(settings):
        if package(name) in TRUSTED:
            return f"{path} names {name}, which is no part of a run: if you trust it, give a --config that names it"
        return f"{path} names {name}, which is not part of Fathom: if you trust it, add --import {package(name)}"
    import_classes(class_paths(settings))
    return None


def first_untrusted(settings: Any) -> str | None:
    """First import path in ``settings`` that is neither the user's nor a class of a trusted package, or ``None``."""
    for name in class_paths(settings):
        if package(name) not in TRUSTED | user_packages():
            return name
    suspects = (name for name in dotted_names(settings) if package(name) in TRUSTED and name not in names_of_user())
    return next((name for name in suspects if not _is_part_of_a_run(name)), None)


def _is_part_of_a_run(name: str) -> bool:
    """Whether it is one, or cannot be imported: a text that only looks like a name."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        return True
    return isinstance(found, type) and issubclass(found, PARTS_OF_A_RUN)
