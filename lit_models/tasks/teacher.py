"""A trained network that others learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.errors import CheckpointError
from lit_models.names import nearest
from lit_models.tasks.check_images import check_images
from lit_models.tasks.loading import load_checkpoint
from lit_models.weights import load_weights

Statistics = Sequence[float] | None
"""A number per channel, of images in [0, 1]; ``None`` if unknown."""


class Teacher:
    """A frozen network in evaluation mode.

    It is not a module, so that it is in neither the parameters nor the checkpoint of a module that holds it.

    Args:
        net: (N, C, H, W) images to (N, K) logits.
        mean: Mean by which its images are normalised.
        std: Standard deviation by which its images are normalised.
    """

    def __init__(self, net: nn.Module, mean: Statistics = None, std: Statistics = None) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.mean, self.std = mean, std
        self._renormalisation: tuple[Tensor, Tensor] | None = None

    def expect(self, mean: Statistics, std: Statistics, device: torch.device) -> Teacher:
        """Take images on ``device`` that are normalised by ``mean`` and ``std``, if all four are given."""
        self.net.to(device)
        if mean and std and self.mean and self.std and (*mean, *std) != (*self.mean, *self.std):
            m, s, own_m, own_s = (torch.tensor(values)[:, None, None] for values in (mean, std, self.mean, self.std))
            self._renormalisation = (s / own_s).to(device), ((m - own_m) / own_s).to(device)
        return self

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Show it an image (C, H, W) as the student gets it.

        Raises:
            MisconfigurationException: if it does not take such images.
        """
        try:
            check_images(self.net, image_shape, num_classes)
        except MisconfigurationException as error:
            raise MisconfigurationException(f"the teacher's {error}: take one of such images") from error

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, K) logits, of images in float32 and under the autocast of the student."""
        images = images.float()
        if self._renormalisation is not None:
            scale, shift = self._renormalisation
            images = images * scale + shift
        return self.net(images)


def load_teacher(source: str, weights: str | None, num_classes: int) -> Teacher:
    """A teacher of ``num_classes`` classes, on the CPU.

    Args:
        source: A checkpoint of this project, a run directory, or ``timm:NAME`` with a name of ``timm.list_models()``.
        weights: File with the weights of a timm model; without one timm downloads those it has published.
        num_classes: K.

    Raises:
        CheckpointError: For a file that does not hold the network, or a teacher of other classes.
        FileNotFoundError: If there is no file.
        MisconfigurationException: For a model that timm does not have.
    """
    if source.startswith("timm:"):
        return _timm_teacher(source.removeprefix("timm:"), weights, num_classes)
    if weights is not None:
        raise MisconfigurationException(f"teacher_weights are for a teacher timm:NAME, and {source} has its own")
    if not Path(source).exists():
        raise FileNotFoundError(
            f"there is no teacher {source}: set --model.teacher to a checkpoint, or to timm:NAME for a model of timm's"
        )
    model = load_checkpoint(source)
    _check_classes(source, model.num_classes, num_classes)
    return Teacher(model.net, model.hparams.get("mean"), model.hparams.get("std"))


def _timm_teacher(name: str, weights: str | None, num_classes: int) -> Teacher:
    if not timm.is_model(name):
        hint = nearest(name, timm.list_models(), otherwise="resnet50, resnet152d")
        raise MisconfigurationException(f"timm has no model {name!r}; near it are {hint}")
    net: Any
    if weights is None:
        try:
            net = timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"timm can't fetch the weights of {name} ({str(error).splitlines()[0]}): set --model.teacher_weights to"
                " a file of them"
            ) from error
        _check_classes(f"timm:{name}", net.num_classes, num_classes)
    else:
        net = timm.create_model(name, num_classes=num_classes)
        load_weights(net, weights, f"timm:{name} of {num_classes} classes")
    return Teacher(net, net.pretrained_cfg.get("mean"), net.pretrained_cfg.get("std"))


def _check_classes(source: str, num_classes: int, wanted: int) -> None:
    if num_classes != wanted:
        raise CheckpointError(
            f"the teacher {source} knows {num_classes} classes and the student {wanted}: train both on the same ones"
        )
