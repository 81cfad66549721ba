"""Merged copies of trained networks, and how far merging moves their logits."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_models.interfaces import DeeplyTrained, Reparameterizable


def merged_copy(net: nn.Module) -> nn.Module:
    """A copy of ``net``, reparameterized.

    Raises:
        ValueError: If the network can't be merged yet, as at λ ≠ 1.
    """
    merged: Any = copy.deepcopy(net)
    cast(Reparameterizable, merged).reparameterize()
    return merged


def pairs_merged(net: nn.Module) -> nn.Module:
    """A copy of ``net`` without pairs of convolutions.

    Raises:
        ValueError: At λ ≠ 1.
    """
    merged: Any = copy.deepcopy(net)
    cast(DeeplyTrained, merged).merge_pairs()
    return merged


@torch.no_grad()
def logit_difference(trained: nn.Module, merged: nn.Module, images: Tensor) -> tuple[float, float]:
    """The largest difference of logits for ``images`` (N, C, H, W): absolute, and relative to the largest logit."""
    expected = trained(images)
    difference = (merged(images) - expected).abs().max().item()
    return difference, difference / expected.abs().max().item()
