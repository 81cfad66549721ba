"""Augmentation policies of libraries, by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms import v2

from datamodules.pipeline.crops import Interpolation
from datamodules.pipeline.randomness import Stream, generator

_TORCHVISION = {"AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix"}


def make_policy(
    name: str, mean: tuple[float, ...], interpolation: Interpolation = "bilinear"
) -> Callable[[Tensor], Tensor]:
    """A policy as a function of one image, uint8 (H, W, 3) -> uint8 (H, W, 3).

    Args:
        name: torchvision's class (``AutoAugment``, ``RandAugment``, ``TrivialAugmentWide``, ``AugMix``, with its
            default settings), or timm's description, such as ``rand-m9-mstd0.5-inc1``, ``original`` or
            ``augmix-m3-w3``.
        mean: per channel in [0, 1], the colour of what a rotation or shift brings in.
        interpolation: of the rotations, shears and shifts of timm's policies, as timm's loaders hand it to them.

    Raises:
        MisconfigurationException: no such policy.
    """
    colour = tuple(round(255 * value) for value in mean)
    if name in _TORCHVISION:
        transform = getattr(v2, name)(**({} if name == "AugMix" else {"fill": list(colour)}))
        return partial(_with_torchvision, transform)
    makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    try:
        settings = {"img_mean": colour, "interpolation": Image.Resampling[interpolation.upper()]}
        timm_transform = makers.get(name.split("-")[0], auto_augment_transform)(name, settings)
    except (AssertionError, KeyError, ValueError) as error:
        raise MisconfigurationException(
            f"policy is {name!r}; give one of torchvision's ({', '.join(sorted(_TORCHVISION))}) "
            "or a description in timm's form, such as rand-m9-mstd0.5-inc1."
        ) from error
    return partial(_with_timm, timm_transform)


def _with_torchvision(transform: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    return transform(image.permute(2, 0, 1)).permute(1, 2, 0)


def _with_timm(transform: Callable[[Image.Image], Image.Image], image: Tensor) -> Tensor:
    return torch.from_numpy(np.array(transform(Image.fromarray(image.numpy()))))


def apply_policy(policy: Callable[[Tensor], Tensor], image: Tensor, *counters: int) -> Tensor:
    """Apply it with the global generators seeded by the counters, and leave these generators as they were."""
    seed = int(generator(Stream.POLICY, *counters).integers(2**32))
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        return policy(image)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
