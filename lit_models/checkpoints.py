"""Checkpoint files: what is in them, written whole or not at all, and read without running code."""

from __future__ import annotations

import copy
import re
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lit_models.checkpoint_schema import check_training, check_weights
from lit_models.errors import CheckpointError
from lit_models.files import atomic
from lit_models.names import with_current_names
from lit_models.schema import SchemaError
from lit_models.settings import INSTANTIATOR

_OFFICIAL = "official VanillaNet weights are turned into a checkpoint by `fathom convert vanillanet`"
UNREADABLE = (
    *(UnpicklingError, EOFError, RuntimeError, ArithmeticError),
    *(AssertionError, AttributeError, LookupError, TypeError, ValueError),
)
"""What ``torch.load`` raises for files that are no checkpoints."""


def checkpoint_file(path: str | Path) -> Path:
    """``path`` itself, or of a run directory its best checkpoint, and the last one where there is no best.

    Raises:
        FileNotFoundError: For a folder that is no run directory.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    files = [path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(f"{path} is no run directory: it has no checkpoints/best.ckpt or checkpoints/last.ckpt")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint as written; tensors are mapped into memory, not read.

    Raises:
        CheckpointError: where the file is not a whole PyTorch checkpoint, or holds anything but tensors and
            primitives.
        FileNotFoundError: where there is no file.
    """
    path = Path(path)
    if path.is_dir():
        file = next(iter(sorted(path.rglob("*.ckpt"))), path / "checkpoints" / "last.ckpt")
        raise CheckpointError(f"{path} is a folder: give a file in it, such as {file}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    _check_sums(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} {what_is_wrong(error)}; {_OFFICIAL}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} holds no state_dict, so it was not written by this project; {_OFFICIAL}")
    if "pytorch-lightning_version" not in checkpoint:
        raise CheckpointError(f"{path} holds weights without saying of which network: load them into yours in Python")
    for states in ("state_dict", "current_model_state"):
        if isinstance(state := checkpoint.get(states), dict):
            checkpoint[states] = {_without_wrapper(name): value for name, value in state.items()}
    try:
        check_weights(checkpoint)
    except SchemaError as error:
        raise CheckpointError(f"{path} is not a checkpoint of this project: {error}") from error
    if "hyper_parameters" in checkpoint:
        checkpoint["hyper_parameters"] = with_current_names(checkpoint["hyper_parameters"])
    return checkpoint


def _without_wrapper(name: Any) -> Any:
    """The name of a weight without the prefix of a module that ``torch.compile`` has wrapped."""
    return name.replace("_orig_mod.", "") if isinstance(name, str) else name


def check_training_state(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Raises ``CheckpointError`` where training can't go on from what :func:`read_checkpoint` found in ``path``."""
    if "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights alone, so no training can go on from it: begin one with `fathom fit"
            " --model.weights`, or give a checkpoint that a training has written"
        )
    try:
        check_training(checkpoint)
    except SchemaError as error:
        raise CheckpointError(f"{path} has a training state that none can go on from: {error}") from error


def _check_sums(path: Path) -> None:
    """Compare the file with the checksums in it, which ``torch.load`` does not; it maps even compressed bytes."""
    with open(path, "rb") as file:  # is_zipfile takes a file that may not be read for none
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"{path} is not a whole checkpoint: it was cut short, or is another kind of file")
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
                damaged = archive.testzip() if stored else None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): take another one") from error
    if not stored or len({record.filename for record in records}) < len(records):
        raise CheckpointError(f"{path} was packed again by another program: take the file as training wrote it")
    if damaged:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it is wrong; take another one")


def what_is_wrong(error: Exception) -> str:
    """Why torch did not open a file. Its own advice, to allow code to run, is not passed on."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"is not opened, since it asks for {named[1]}, where there should be tensors and primitives"
    return "can't be read as tensors and primitives alone: it is damaged, or of another project"


def merged_checkpoint(model: L.LightningModule, merged: nn.Module) -> dict[str, Any]:
    """A checkpoint of ``model`` with ``merged`` in the place of its network.

    The constructor of the network takes ``reparameterized``, with which it builds the merged form.
    """
    hparams = copy.deepcopy(dict(model.hparams))
    if "net" in hparams:
        hparams["net"].setdefault("init_args", {})["reparameterized"] = True
    around = {name: value for name, value in model.state_dict().items() if not name.startswith("net.")}
    return {
        "state_dict": {**around, **_classifier_state(merged)},
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
            "_instantiator": INSTANTIATOR,
        },
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": L.__version__,
    }


def _classifier_state(net: nn.Module) -> dict[str, Tensor]:
    return {f"net.{name}": value for name, value in net.state_dict().items()}


def write_atomically(checkpoint: dict[str, Any], path: str | Path) -> None:
    """``torch.save`` that leaves the whole file or none, on disk when it returns.

    Raises:
        OSError: naming the file.
    """
    try:
        with atomic(path, "wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch hides what the system said, such as that the disk is full.
        if not isinstance(reason := error.__context__, OSError):
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints of a Trainer, written by :func:`write_atomically` and read by :func:`read_checkpoint`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_atomically(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Unlink one file. Lightning's own removes folders with all that is in them."""
        path = Path(path)
        if path.is_file() and not path.is_symlink() and ".." not in path.parts:
            path.unlink()
