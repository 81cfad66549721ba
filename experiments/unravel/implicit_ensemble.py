"""A network with stochastic depth as an ensemble of its subnetworks (Huang et al. 2016, section 3).

Evaluation scales each branch by its survival probability (equation 5), in the place of an average over the 2^L
subnetworks that training drew from. Here that average is taken, over as many as one likes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from callbacks.stochastic_depth import draw_gates
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import ResidualNetwork


class Hits(NamedTuple):
    """Of N images, how many are classified rightly; integer tensors on the device of the network."""

    rule: Tensor
    """By the p_l rule, shape ()."""
    averaged: Tensor
    """By the mean class probabilities of the first k members, shape (members,) for k = 1 … members."""
    single: Tensor
    """By each member alone, shape (members,)."""


def survival_probabilities(net: nn.Module) -> list[float]:
    """p_l of the residual blocks.

    Raises:
        MisconfigurationException: where the network has none, or no subnetworks because all are 1.
    """
    blocks = net.residual_blocks() if isinstance(net, ResidualNetwork) else {}
    probs = [block.survival_prob.item() for block in blocks.values()]
    if all(prob == 1 for prob in probs):
        raise MisconfigurationException(
            f"this {type(net).__name__} was not trained with stochastic depth: its survival probabilities say"
            " nothing of subnetworks"
        )
    return probs


@torch.inference_mode()
def implicit_ensemble(net: Any, images: Tensor, targets: Tensor, members: int = 64, seed: int = 0) -> Hits:
    """Compare the p_l rule with averages over subnetworks.

    The subnetworks are a function of the seed, and the same for all images. The network is left as it was.

    Args:
        net: with ``residual_blocks``.
        images: (N, C, H, W).
        targets: classes (N,).
        members: subnetworks.
        seed: of their draws.

    Raises:
        MisconfigurationException: where the network has no subnetworks.
    """
    probs = survival_probabilities(net)
    blocks = list(net.residual_blocks().values())
    before = [block.gate for block in blocks]
    total = torch.zeros((), device=images.device)
    single, averaged = [], []

    def hits_with(gates: list[Any]) -> tuple[Tensor, Tensor]:
        for block, gate in zip(blocks, gates, strict=True):
            block.gate = gate
        logits = net(images).float()
        return logits.softmax(1), (logits.argmax(1) == targets).sum()

    try:
        with evaluation_mode(net):
            _, rule = hits_with([None] * len(blocks))
            for member in range(members):
                probabilities, hits = hits_with(list(draw_gates(probs, "batch", seed, member)))
                total = total + probabilities
                single.append(hits)
                averaged.append((total.argmax(1) == targets).sum())
    finally:
        for block, gate in zip(blocks, before, strict=True):
            block.gate = gate
    return Hits(rule, torch.stack(averaged), torch.stack(single))
