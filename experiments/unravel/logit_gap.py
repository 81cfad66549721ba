"""How far the logit of the true class stands out (He et al. 2019, section 5.2 and figure 4).

With targets of 1 − ε for the true class and ε/(K − 1) for each other, the loss is least where the true logit exceeds
**each** other by log((K − 1)(1 − ε)/ε). So there the gaps to their mean and to the largest are equal. The gap to the
mean is the mean over the other classes of gaps that all have this optimum: it is the one to compare, as in figure 4b.
The gap to the largest is the least of them, and lies below wherever the others differ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LogitGaps(NamedTuple):
    """Of each image, (N,) in float64."""

    to_mean: Tensor
    """True logit minus the mean of the others."""
    to_largest: Tensor
    """True logit minus the largest of the others: negative where the image is misclassified."""


def logit_gaps(logits: Tensor, targets: Tensor) -> LogitGaps:
    """The gaps of logits (N, K) of images of the classes (N,)."""
    logits = logits.double()
    true = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -math.inf)
    mean = (logits.sum(1) - true) / (logits.shape[1] - 1)
    return LogitGaps(true - mean, true - torch.amax(others, 1))


def optimal_gap(classes: int, epsilon: float) -> float:
    """log((K − 1)(1 − ε)/ε), infinite without smoothing.

    Args:
        classes: K.
        epsilon: ε that the K − 1 other classes have in all. Where ε is spread over all classes, as with
            ``smooth_over: all``, it is ε(K − 1)/K.
    """
    return math.log((classes - 1) * (1 - epsilon) / epsilon) if epsilon else math.inf
