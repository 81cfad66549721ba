"""Classification losses of (N, K) logits, with classes (N,) or probabilities (N, K) as targets. The loss smooths the
labels, whatever mixed them before: both are linear, so their order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_models.errors import check_choice

LossName = Literal["cross_entropy", "binary_cross_entropy"]
Loss = LossName | Callable[[Tensor, Tensor], Any]
"""A loss of this module by name, or a function of float32 logits (N, K) and classes (N,) or probabilities (N, K)."""

SmoothOver = Literal["all", "others"]
"""Which classes share ε. all: every class gets ε/K, so the true one keeps 1 − ε + ε/K (Szegedy et al. 2016; torch,
timm). others: each wrong class gets ε/(K − 1) and the true one keeps 1 − ε (Bag of Tricks, equation 4)."""


def share_over_all(epsilon: float, num_classes: int, smooth_over: SmoothOver) -> float:
    """The ε over all K classes that makes the same targets as ``epsilon`` over ``smooth_over``.

    Raises:
        MisconfigurationException: for an unknown ``smooth_over``, and where no weight is left on the true class alone.
    """
    check_choice("smooth_over", smooth_over, SmoothOver, MisconfigurationException)
    share = epsilon * num_classes / (num_classes - 1) if smooth_over == "others" and epsilon else epsilon
    if not 0 <= share < 1:
        raise MisconfigurationException(
            f"label_smoothing is {epsilon} over {smooth_over} of {num_classes} classes; give 0 (off) or a small share"
        )
    return share


def smoothed(targets: Tensor, num_classes: int, epsilon: float) -> Tensor:
    """Classes (N,) or probabilities (N, K) to float probabilities (N, K), ε/K of them uniform."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes).float()
    return targets * (1 - epsilon) + epsilon / num_classes


def cross_entropy(logits: Tensor, targets: Tensor, epsilon: float = 0.0) -> Tensor:
    """Mean over the images, in float32, of −Σ q_k log softmax(z)_k."""
    return F.cross_entropy(logits.float(), targets, label_smoothing=epsilon)


def binary_cross_entropy(logits: Tensor, targets: Tensor, epsilon: float = 0.0) -> Tensor:
    """Mean over images *and classes*, in float32: every class asked on its own (Wightman et al. 2021, section 2.2)."""
    return F.binary_cross_entropy_with_logits(logits.float(), smoothed(targets, logits.shape[1], epsilon))


def compute_loss(loss: Loss, logits: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """The mean of ``loss``, in float32. One that is not of this module gets smoothed labels as probabilities."""
    if isinstance(loss, str):
        return LOSSES[loss](logits, targets, epsilon)
    return loss(logits.float(), smoothed(targets, logits.shape[1], epsilon) if epsilon else targets)


LOSSES = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}
