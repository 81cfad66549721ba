"""Mixup and CutMix: whole batches, soft targets."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot


def mixup(images: Tensor, targets: Tensor, partner: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """λ·x + (1 - λ)·x[partner], for images and soft targets alike (Zhang et al. 2017, equation 1).

    Args:
        images: float (N, C, H, W).
        targets: float (N, K).
        partner: int64 (N,), a permutation of the batch.
        weight: λ in [0, 1].
    """
    return images[partner].lerp_(images, weight), targets[partner].lerp(targets, weight)


def cutmix_box(height: int, width: int, weight: float, y: float, x: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of (1 - λ) of the image around (y, x), cut at the border (Yun et al. 2019,
    equation 2).

    Args:
        weight: λ in [0, 1].
        y, x: the box's centre, as fractions of height and width in [0, 1).
    """
    half = 0.5 * math.sqrt(1 - weight)
    cy, cx = int(y * height), int(x * width)
    dy, dx = int(half * height), int(half * width)
    return max(cy - dy, 0), min(cy + dy, height), max(cx - dx, 0), min(cx + dx, width)


def cutmix(images: Tensor, targets: Tensor, partner: Tensor, box: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Paste the partner's box into each image, in place; targets are weighted by the areas.

    Args:
        images: float (N, C, H, W).
        targets: float (N, K).
        partner: int64 (N,), a permutation of the batch.
        box: top, bottom, left, right.
    """
    top, bottom, left, right = box
    images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    return images, targets[partner].lerp(targets, weight)


class Mixing(NamedTuple):
    """How a batch is mixed. All but the partners stay on the host, so nothing synchronises with the device."""

    partner: Tensor
    """int64 (N,), a permutation of the batch."""
    weight: float
    """λ in [0, 1]."""
    centre: tuple[float, float] | None
    """That of CutMix's box, y and x as fractions in [0, 1); ``None`` is mixup."""


def draw_mixing(size: int, rng: np.random.Generator, mixup_alpha: float, cutmix_alpha: float) -> Mixing:
    """Mixup or CutMix, with equal probability if both have an α above 0; λ ~ Beta(α, α), one for the batch.

    Args:
        size: images in the batch.
    """
    # Always consume the same number of draws, so that a change of one setting leaves the other draws alone.
    which, y, x = rng.random(4)[1:].tolist()  # the first has decided whether to mix
    partner = torch.from_numpy(rng.permutation(size))
    if mixup_alpha > 0 and (which < 0.5 or cutmix_alpha == 0):
        return Mixing(partner, rng.beta(mixup_alpha, mixup_alpha), None)
    return Mixing(partner, rng.beta(cutmix_alpha, cutmix_alpha), (y, x))


def mix(images: Tensor, targets: Tensor, num_classes: int, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix a batch.

    Args:
        images: float (N, C, H, W), may be written to.
        targets: int64 (N,).

    Returns:
        The images, and float (N, K) targets.
    """
    partner = mixing.partner.to(images.device, non_blocking=True)
    soft = one_hot(targets, num_classes).to(images.dtype)
    if mixing.centre is None:
        return mixup(images, soft, partner, mixing.weight)
    return cutmix(images, soft, partner, cutmix_box(images.shape[2], images.shape[3], mixing.weight, *mixing.centre))


def mixing_in_words(mixup_alpha: float, cutmix_alpha: float, prob: float, off_epochs: int) -> str:
    """Which kinds of mixing there are, and on how many batches."""
    alphas = {"mixup": mixup_alpha, "CutMix": cutmix_alpha}
    used = [f"{name} with α = {alpha:g}" for name, alpha in alphas.items() if alpha]
    if not used:
        return "none"
    off = f", none in the last {off_epochs} epochs" if off_epochs else ""
    return f"{' or '.join(used)}, on {prob:.0%} of the batches{off}"
