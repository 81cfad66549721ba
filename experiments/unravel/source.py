"""The network that is taken apart, and the images it is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from lightning.pytorch.utilities import move_data_to_device
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from datamodules.pipeline.image_data import ImageData
from experiments.cli.contract import ChecksImages
from experiments.cli.data_of_run import data_of_run
from experiments.cli.initial_weights import STARTS_FROM
from experiments.cli.messages import did_you_mean, one_sentence
from experiments.cli.pretrained import with_pretrained
from experiments.cli.trusted_names import refusal
from experiments.device import best_device
from experiments.runs.directory import experiment_name, run_config
from experiments.runs.fits import setting, settings_of
from experiments.tf32 import allow_tf32
from lit_models import CheckpointError, load_checkpoint
from lit_models.checkpoints import checkpoint_file, read_checkpoint
from lit_models.interfaces import BATCH_NORMS, Link
from lit_models.surgery.links import links
from lit_models.weights import load_weights

Batch = tuple[Tensor, Tensor]


class Seen(NamedTuple):
    """The data that a network was evaluated on, for the line below a figure and its line of chance."""

    data: str = ""
    classes: int | None = None


@dataclass(frozen=True)
class Subject:
    """A network in evaluation mode, and the data it is evaluated on."""

    name: str
    net: nn.Module
    data: ImageData
    directory: Path
    """Where results go unless the user says otherwise."""
    repeats_grey: bool = False
    """Grey images are repeated to three channels."""

    @property
    def links(self) -> list[Link]:
        """Of the network, see :func:`lit_models.surgery.links`; :func:`taken_apart` checks them."""
        return links(self.net)

    @property
    def seen(self) -> Seen:
        """What it is evaluated on."""
        return Seen(type(self.data).__name__, self.data.num_classes)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def batches(self, images: int, skip: int = 0, test: bool = True) -> Iterator[Batch]:
        """The next ``images`` test images after the first ``skip``, in a fixed order that mixes the classes.

        Normalised images (N, C, H, W) and classes (N,), on the network's device. Without ``test`` they are images that
        are trained on, prepared as for evaluation.
        """
        for raw in self.data.sample_loader(images, skip, test):
            pixels, targets = self.data.on_after_batch_transfer(move_data_to_device(raw, self.device), 0)
            yield pixels.expand(-1, 3, -1, -1) if self.repeats_grey else pixels, targets

    def prepared(self, files: Sequence[Path]) -> Tensor:
        """Image files as the network gets those of the test: normalised (N, C, H, W), on its device."""
        pixels = self.data.evaluation_images(files).to(self.device)
        return pixels.expand(-1, 3, -1, -1) if self.repeats_grey else pixels

    def fingerprint(self) -> str:
        """Hash of the weights and the data, by which recorded results are recognised as this network's."""
        data = self.data
        seen = type(data).__name__, data.image_size, data.mean, data.std, data.class_names, data.fingerprint(test=True)
        digest = hashlib.sha256(f"{seen}".encode())
        for name, tensor in self.net.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:12]


def open_subject(source: str, data: ImageData | None = None, weights: Path | None = None, seed: int = 0) -> Subject:
    """The network that ``source`` names.

    Args:
        source: a run directory (its best checkpoint is taken), a checkpoint, ``pretrained:NAME``, ``timm:NAME`` or
            ``torchvision:NAME``.
        data: data module to evaluate on (default: that of the training).
        weights: weights file for ``timm:NAME`` and ``torchvision:NAME`` (default: random initialisation, where a
            branch that the library begins with γ = 0 begins with γ = 1).
        seed: random seed of the initialisation.

    Raises:
        UsageError, MisconfigurationException, CheckpointError, FileNotFoundError: if there is no such network, it is of
            a package that the user did not name, or it does not fit the data.
    """
    allow_tf32(False)
    library, _, name = source.partition(":")
    if library in ("timm", "torchvision") and name:
        if data is None:
            raise MisconfigurationException(
                f"say which images to evaluate {source} on, such as --data datamodules.SmallImages"
            )
        net = _library_network(library, name, data, weights, seed)
        directory = Path("runs") / "unravel" / source.replace(":", "-")
        subject = Subject(source, net, data, directory, repeats_grey=data.in_channels == 1)
    elif weights is not None:
        raise MisconfigurationException(f"--weights is for timm:NAME and torchvision:NAME; {source} has its own")
    else:
        subject = _own_subject(Path(with_pretrained(source)), data)
    _for_analysis(subject.net)
    try:
        subject.data.prepare_data()
        subject.data.setup("test")
    except (FileNotFoundError, MisconfigurationException) as error:
        if data is not None or "data.root" not in str(error):
            raise
        kind = type(subject.data).__name__
        raise type(error)(f"{error} Name the class with it: --data {kind} --data.root FOLDER.") from error
    _check(subject)
    return subject


def taken_apart(subject: Subject) -> list[Link]:
    """The links of the network, whose composition gives its very logits on two images.

    Raises:
        MisconfigurationException: if it can't be taken apart.
    """
    chain = subject.links
    x, _ = next(subject.batches(2))
    with torch.inference_mode():
        logits = subject.net(x)
        for link in chain:
            x = link.forward(x)
    if not torch.equal(x, logits):
        raise MisconfigurationException(
            f"{subject.name} can't be taken apart: its blocks and layers, one after the other, give other logits than "
            f"the network (largest difference {(x - logits).abs().max():.1e})"
        )
    return chain


def initial_network(source: str, subject: Subject, seed: int = 0) -> nn.Module:
    """The network of ``subject`` with the weights that it began with, built anew in its trained form.

    Args:
        source: see :func:`open_subject`.
        subject: that was opened from it.
        seed: of the weights, where no run says its own.

    Raises:
        MisconfigurationException: if the network does not know how it was made, or began from weights in a file.
    """
    library, _, name = source.partition(":")
    if library in ("timm", "torchvision") and name:
        net = _library_network(library, name, subject.data, None, seed)
    else:
        config = run_config(checkpoint_file(Path(with_pretrained(source)).expanduser()))
        settings = settings_of(config.parent) if config else {}
        if any(setting(settings, name) for name in ("ckpt_path", *STARTS_FROM)):
            raise MisconfigurationException(
                f"{source} did not begin from random weights: its config.yaml names where they are from"
            )
        arguments = getattr(subject.net, "constructor_arguments", None)
        if arguments is None:
            raise MisconfigurationException(
                f"{type(subject.net).__name__} can't be built anew without lit_models.settings.keeps_arguments"
            )
        if arguments.get("reparameterized"):
            arguments = {**arguments, "reparameterized": False}
        with torch.random.fork_rng():
            torch.manual_seed(settings.get("seed_everything", seed))
            net = type(subject.net)(**arguments)
    return _for_analysis(net)


def _own_subject(path: Path, data: ImageData | None) -> Subject:
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}: give a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME"
        )
    checkpoint = checkpoint_file(path)
    if reason := refusal(checkpoint, read_checkpoint(checkpoint).get("hyper_parameters", {})):
        raise CheckpointError(reason)
    module: Any = load_checkpoint(checkpoint)
    if isinstance(module, ChecksImages):
        raise MisconfigurationException(
            f"{checkpoint} is of a {type(module).__name__}, and only a classifier can be taken apart: give the run of"
            " its backbone"
        )
    net = module.net
    config = run_config(checkpoint)
    if data is None:
        if config is None:
            raise MisconfigurationException(
                f"{checkpoint} does not lie in the directory of its run, which would say what data it is of: "
                "give --data, such as --data datamodules.CIFAR10"
            )
        data = data_of_run(config)
    if config is None:
        return Subject(checkpoint.stem, net, data, Path("runs") / "unravel" / checkpoint.stem)
    return Subject(experiment_name([config]), net, data, config.parent / "unravel")


def _for_analysis(net: nn.Module) -> nn.Module:
    net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return net.to(best_device())


def _library_network(library: str, name: str, data: ImageData, weights: Path | None, seed: int) -> nn.Module:
    if library == "timm":
        known = [*timm.list_models(), *timm.list_pretrained()]
    else:
        known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise MisconfigurationException(f"{library} has no network {name!r}{did_you_mean(name, known)}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if library == "timm":
            net: Any = timm.create_model(name, num_classes=data.num_classes)
        else:
            net = torchvision.models.get_model(name, weights=None, num_classes=data.num_classes)
    if weights is None:
        _open_branches(net)
    else:
        load_weights(net, weights, f"{library}:{name} of {data.num_classes} classes")
    if hasattr(net, "set_input_size"):
        try:
            net.set_input_size((data.image_size, data.image_size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise MisconfigurationException(
                f"{library}:{name} can't take images of {data.image_size}×{data.image_size}: {one_sentence(str(error))}"
            ) from error
    return net


def _open_branches(net: nn.Module) -> None:
    """Set γ to 1 in each batch normalisation that begins with γ = 0, as the last of each branch of timm's ResNets does:
    the branches would be zero, and deleting them change nothing.
    """
    for module in net.modules():
        if isinstance(module, BATCH_NORMS) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)


def _check(subject: Subject) -> None:
    """Check that the network takes the images, and has a logit for each class."""
    images, _ = next(subject.batches(2))
    with torch.inference_mode():
        try:
            logits = subject.net(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise MisconfigurationException(
                f"{subject.name} can't take images of {images.shape[1]}×{images.shape[2]}×{images.shape[3]}: "
                f"{one_sentence(str(error))}"
            ) from error
    if logits.shape[1:] != (subject.data.num_classes,):
        raise MisconfigurationException(
            f"{subject.name} has {logits.shape[1]} classes, the data {subject.data.num_classes}: "
            "give the --data it was trained on"
        )
