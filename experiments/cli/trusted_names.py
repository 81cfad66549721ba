"""Nothing is imported because a file says so: which names a checkpoint, and the configuration beside it, may use.

A class that the user names, in a flag or in a file given as ``--config``, is the user's decision. A checkpoint brings
names of its own, and so does the configuration of its run, which is read without being asked for: they may name
networks, data modules, callbacks and what else a run is made of, of the packages that Fathom is made of. They may not
name functions, which would be called with arguments from the same file, nor other ways to read a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pkgutil import resolve_name
from typing import Any

import lightning as L
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import ClusterEnvironment, LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch import nn

from experiments.runs.safe_yaml import read_yaml
from lit_models.names import class_paths, dotted_names, package

TRUSTED = {
    *("lit_models", "datamodules", "callbacks", "experiments"),
    *("lightning", "torch", "torchvision", "torchmetrics", "timm"),
}
PARTS_OF_A_RUN = (
    *(nn.Module, L.LightningDataModule, L.Callback, Logger),
    *(Accelerator, ClusterEnvironment, LayerSync, Precision, Profiler, Strategy),
)


def names_of_user(settings: Iterable[Any]) -> set[str]:
    """Everything in ``settings``, which the user gave, that could be the name of a class."""
    return set(dotted_names(list(settings)))


def first_untrusted(settings: Any, named: set[str]) -> str | None:
    """The first name in ``settings`` of something that the user did not name, nor lies in a package of a name of the
    user's, and that is no part of a run made of what Fathom is made of.
    """
    packages = set(map(package, named))
    for name in class_paths(settings):
        if package(name) not in TRUSTED | packages:
            return name
    suspects = (name for name in dotted_names(settings) if package(name) in TRUSTED and name not in named)
    return next((name for name in suspects if not _is_part_of_a_run(name)), None)


def _is_part_of_a_run(name: str) -> bool:
    """Whether it is, or nothing at all: a text that only looks like a name."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        return True
    return isinstance(found, type) and issubclass(found, PARTS_OF_A_RUN)


def trust(named: set[str]) -> None:
    """Let the command line import by name from the packages of ``named`` and what Fathom is made of, and nothing else.

    Whatever the way in which a name comes to the parser, as a class path, a function or in yet another file.
    """
    packages = TRUSTED | set(map(package, named))
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=sorted(packages))


def flag_values(flags: Iterable[str]) -> Iterator[Any]:
    """What follows the names of flags, read as YAML where it is."""
    for word in flags:
        text = word.partition("=")[2] if word.startswith("-") else word
        try:
            yield read_yaml(text)
        except yaml.YAMLError:
            yield text
