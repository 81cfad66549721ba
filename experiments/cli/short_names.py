"""Short names in configuration files and in flags: ``CIFARResNet`` for a class of Fathom, ``timm:NAME`` for a network.

A class is known by its name as soon as its module lies in one of the folders below.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

from experiments.runs.directory import RUN_DIRECTORY
from experiments.runs.safe_yaml import read_yaml
from lit_models.names import with_current_names

FOLDERS = {
    "model": ("lit_models.tasks",),
    "net": ("lit_models.networks", "lit_models.transfer"),
    "backbone": ("lit_models.networks",),
    "data": ("datamodules",),
    "callbacks": ("callbacks",),
}
"""Settings that take a class, and the folders with those of Fathom."""
LOGGERS = ("CSVLogger", "TensorBoardLogger")
"""Those of Lightning that need a folder, which is the run directory where the user gives none."""
TIMM = "timm:"
PARSER_MODE = "yaml with short names"
"""The ``parser_mode`` of an ``ArgumentParser`` that understands them."""


@cache
def known_classes(setting: str) -> dict[str, str]:
    """The import path of every class in the folders for ``setting``, by its name."""
    return {
        kind.__name__: _public_path(kind) for folder in FOLDERS[setting] for kind in _classes(import_module(folder))
    }


def _classes(folder: ModuleType) -> Iterator[type]:
    """Classes that can be instantiated and that a module of ``folder`` defines, but for those of a private name."""
    for info in walk_packages(folder.__path__, f"{folder.__name__}."):
        for name, kind in vars(import_module(info.name)).items():
            if inspect.isclass(kind) and kind.__module__ == info.name and _is_part_of_a_run(kind) and name[0] != "_":
                yield kind


def _is_part_of_a_run(kind: type) -> bool:
    from lightning import Callback, LightningDataModule
    from torch.nn import Module

    return issubclass(kind, Callback | LightningDataModule | Module) and not inspect.isabstract(kind)


def _public_path(kind: type) -> str:
    """From the top-level package if it has the class, and otherwise from its module."""
    root = kind.__module__.partition(".")[0]
    public = getattr(import_module(root), kind.__name__, None) is kind
    return f"{root if public else kind.__module__}.{kind.__name__}"


def full_name(key: str, value: Any) -> Any:
    """``value`` of the setting ``key``: a class of Fathom by its import path, ``timm:NAME`` as class and argument."""
    if isinstance(value, str) and value.startswith("pretrained:"):
        from experiments.cli.pretrained import with_pretrained

        return with_pretrained(value)
    setting = key.removesuffix(".help").removesuffix("+").removesuffix(".class_path").rpartition(".")[2]
    if setting in ("net", "backbone") and isinstance(value, str) and value.startswith(TIMM):
        return {"class_path": "lit_models.TimmBackbone", "init_args": {"name": value.removeprefix(TIMM)}}
    if setting == "logger" and isinstance(value, str) and value.rpartition(".")[2] in LOGGERS:
        return _with_folder({"class_path": value})
    if setting in FOLDERS and isinstance(value, str) and value.isidentifier():
        return known_classes(setting).get(value, value)
    return value


def _with_folder(logger: dict[str, Any]) -> dict[str, Any]:
    return logger | {"init_args": {"save_dir": RUN_DIRECTORY} | (logger.get("init_args") or {})}


def with_full_names(flags: Iterable[str]) -> list[str]:
    """``flags`` of a command line, ``--key value`` or ``--key=value``, with classes of Fathom by their import paths."""
    words, key = [], ""
    for word in flags:
        if word.startswith("--"):
            key, equals, value = word.removeprefix("--").partition("=")
            words.append(f"--{key}={_word(full_name(key, value))}" if equals else word)
        else:
            words.append(_word(full_name(key, word)))
    return words


def _word(value: str | dict[str, Any]) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def expand(value: Any, key: str = "") -> Any:
    """A parsed configuration with every short name replaced by what it stands for."""
    if isinstance(value, dict):
        if key.endswith(".logger") and str(value.get("class_path")).rpartition(".")[2] in LOGGERS:
            return _with_folder(value)
        return {name: expand(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [expand(item, key) for item in value]
    return full_name(key, value)


def load(text: str) -> Any:
    """YAML within limits, expanded, and with the names that classes have now."""
    read_yaml(text)  # jsonargparse's own loader has none
    return with_current_names(expand(get_loader("yaml")(text)))


set_loader(PARSER_MODE, load, exceptions=(YAMLError,))
