"""The model of a checkpoint."""

from __future__ import annotations

import sys
from argparse import ArgumentError
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import instantiate_module
from torch import nn

from lit_models.checkpoints import checkpoint_file, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.internals import described_by
from lit_models.names import class_paths, dotted_names, package
from lit_models.schema import SchemaError
from lit_models.settings import may_be_described
from lit_models.tasks.classification import ImageClassifier
from lit_models.tasks.task import Task

_NOT_NAMES = ("_class_path", "_instantiator", "class_names")
"""Settings whose texts may look like import paths, and name nothing that a checkpoint chooses."""


def load_checkpoint(path: str | Path, net: nn.Module | None = None) -> Any:
    """The trained model, on the CPU and in evaluation mode.

    A checkpoint describes its network, merged or not, and its class: an ``ImageClassifier``, a ``Detector``, a
    ``Segmenter``, a ``Distillation`` (whose teacher is not needed), or a subclass of yours. Import classes of other
    packages before; none is imported because a file says so.

    Args:
        path: A ``.ckpt`` file, or a run directory, of which the best checkpoint is loaded (the last if there is none).
        net: The network, for a checkpoint that does not describe it: that of a classifier constructed in Python around
            a network of another package.

    Raises:
        CheckpointError: If the file is not a checkpoint, names a class that is not imported, or does not fit ``net``.
        FileNotFoundError: If there is no such file, or no checkpoint in the directory.
    """
    path = checkpoint_file(path)
    checkpoint = read_checkpoint(path)
    hparams = checkpoint.get("hyper_parameters", {})
    described = {name: value for name, value in hparams.items() if net is None or name != "net"}
    if net is None and "net" not in hparams:
        raise CheckpointError(f"{path} does not describe its network: build it and pass it as `net`")
    check_classes(path, described)
    kind: type[Task] = ImageClassifier
    if "_class_path" in hparams:
        kind = _imported(hparams["_class_path"])
        if not issubclass(kind, Task):
            raise CheckpointError(f"{path} is of a {kind.__name__}, which is no ImageClassifier, Detector or Segmenter")
    settings = {name: value for name, value in described.items() if not name.startswith("_")}
    if kind is ImageClassifier:  # files of version 0.1 may hold the arguments of a subclass without its name
        known = signature(kind).parameters.keys() | signature(Task).parameters.keys()
        settings = {name: value for name, value in settings.items() if name in known}
    try:
        with described_by(hparams):  # so that the model can be saved again
            model = instantiate_module(kind, settings if net is None else {**settings, "net": net})
    except ArgumentError as error:
        raise CheckpointError(f"{path} does not describe a {kind.__name__}: {_last_line(error)}") from error
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, SchemaError) as error:
        raise CheckpointError(f"{path} does not fit the network: {_last_line(error)}") from error
    return model.eval()


def check_classes(path: str | Path, hparams: Mapping[str, Any]) -> None:
    """Check that settings name nothing but what may be built from a file.

    Everything that is named lies in this package or a module that is imported. A ``class_path`` is of an ``nn.Module``
    or a class with :func:`~lit_models.settings.keeps_arguments`. Any other text that is the import path of something is
    that of such a class, or the function of a loss or schedule.

    Raises:
        CheckpointError: If one is not.
    """
    for class_path in class_paths(hparams):
        if not may_be_described(_imported(class_path)):
            raise CheckpointError(
                f"{path} asks for the class {class_path}, which is no imported nn.Module: if you trust it, import"
                f" {class_path.rpartition('.')[0]} first"
            )
    for setting, value in hparams.items():
        if setting in _NOT_NAMES:
            continue
        for name in set(dotted_names(value)) - set(class_paths(value)):
            found = _imported(name)
            if may_be_described(found) or not (package(name) in sys.modules or find_spec(package(name))):
                continue
            if setting not in ("loss", "schedule"):
                raise CheckpointError(f"{path} names {name} where a setting should be: it is not of this project")
            if not isfunction(found):
                raise CheckpointError(
                    f"{path} asks for the function {name}, which is not imported: if you trust it, import"
                    f" {name.rpartition('.')[0]} first"
                )


def _imported(name: str) -> Any:
    """What has the import path ``name`` in a module of this package or one imported before; otherwise ``None``."""
    module, _, attribute = name.rpartition(".")
    if package(module) == package(__name__):
        with suppress(ModuleNotFoundError):
            import_module(module)  # of this package: nothing foreign runs
    return getattr(sys.modules.get(module), attribute, None)


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1].strip()
