"""Checkpoints in and out, with nothing but tensors and primitives in them."""

from __future__ import annotations

import copy
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_models.image_classifier import ImageClassifier


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this project, or not of this network. The message names file and mend."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint as written; tensors are mapped into memory, not read.

    Raises:
        CheckpointError: where the file is not a whole PyTorch checkpoint, or holds anything but tensors and
            primitives.
        FileNotFoundError: where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a whole checkpoint: it was cut short, or is another kind of file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{path} can't be read as tensors and primitives alone, so it is damaged or not of this project"
            f" ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(
            f"{path} holds no state_dict: it was not written by this project (official VanillaNet weights are turned"
            " into a checkpoint by `fathom convert vanillanet`)"
        )
    return checkpoint


def load_checkpoint(path: str | Path, net: nn.Module | None = None) -> ImageClassifier:
    """The classifier of a checkpoint, on the CPU and in evaluation mode.

    Nothing but the path is needed for a checkpoint written from the command line, merged or not: it names its
    network. Classes outside this package must be imported before; none is imported because a file says so.

    Args:
        path: to a ``.ckpt`` file.
        net: the network, for a checkpoint of a classifier constructed in Python.

    Raises:
        CheckpointError: where the file is not a checkpoint, names a class not imported, or does not fit the network.
    """
    checkpoint = read_checkpoint(path)
    hparams = checkpoint.get("hyper_parameters", {})
    if net is None:
        if "net" not in hparams:
            raise CheckpointError(f"{path} does not say which network it is of: pass it as `net`")
        check_classes(path, hparams)
    try:
        given: dict[str, Any] = {} if net is None else {"net": net}
        model = ImageClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True, **given)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network: {str(error).splitlines()[-1].strip()}") from error
    model.hparams.update(hparams)  # the network among them, so that the model can be saved again
    return model.eval()


def merged_checkpoint(model: L.LightningModule, merged: nn.Module) -> dict[str, Any]:
    """A checkpoint of ``model`` with ``merged`` in the place of its network.

    A network that can be merged takes ``reparameterized`` as an argument of its constructor.
    """
    hparams = copy.deepcopy(dict(model.hparams))
    if "net" in hparams:
        hparams["net"].setdefault("init_args", {})["reparameterized"] = True
    return {
        "state_dict": _classifier_state(merged),
        "hyper_parameters": hparams,
        "epoch": model.current_epoch,
        "global_step": model.global_step,
        "pytorch-lightning_version": L.__version__,
    }


def classifier_checkpoint(net: nn.Module, net_args: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """A checkpoint of a classifier around weights from elsewhere.

    Args:
        net: with the weights.
        net_args: of its constructor, ``num_classes`` among them.
        arguments: of :class:`ImageClassifier`.
    """
    net_class = type(net)
    spec = {"class_path": f"{net_class.__module__}.{net_class.__qualname__}", "init_args": net_args}
    return {
        "state_dict": _classifier_state(net),
        "hyper_parameters": {
            "net": spec,
            "num_classes": net_args["num_classes"],
            **arguments,
            "_class_path": "lit_models.ImageClassifier",
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
        },
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
    }


def _classifier_state(net: nn.Module) -> dict[str, Tensor]:
    return {f"net.{name}": value for name, value in net.state_dict().items()}


def write_atomically(checkpoint: dict[str, Any], path: str | Path) -> None:
    """``torch.save`` that leaves the whole file or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_classes(path: str | Path, hparams: dict[str, Any]) -> None:
    """Raises ``CheckpointError`` where a ``class_path`` names what is neither an imported class nor one of ours."""
    for class_path in _class_paths(hparams):
        module, _, name = class_path.rpartition(".")
        if module.startswith(f"{__package__}."):
            with suppress(ModuleNotFoundError):
                import_module(module)  # of this package: nothing foreign runs
        if not isinstance(getattr(sys.modules.get(module), name, None), type):
            raise CheckpointError(
                f"{path} asks for the class {class_path}, which is not imported: if you trust it, import {module} first"
            )


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("class_path", "_class_path"):
                yield str(item)
            yield from _class_paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _class_paths(item)
