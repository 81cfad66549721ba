"""Building blocks in another order (Veit et al. 2016, section 4.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from scipy.stats import kendalltau
from torch import Tensor, nn

from experiments.unravel.lesions import removable
from experiments.unravel.variants import Step, Variant, top1_errors
from lit_models.interfaces import Link

Order = tuple[int, ...]
"""All links of a network by index, in the order in which they run."""


def exchangeable(chain: Sequence[Link]) -> list[list[int]]:
    """Links that may take each other's places, stage by stage: those that keep the shape of the image."""
    stages: dict[int, list[int]] = {}
    for index in removable(chain):
        if not chain[index].transition:
            stages.setdefault(chain[index].stage, []).append(index)
    return [stage for stage in stages.values() if len(stage) > 1]


def random_order(chain: Sequence[Link], swaps: int, seed: int, draw: int) -> Order:
    """The order after ``swaps`` exchanges, each of a pair drawn uniformly from all pairs that may be exchanged.

    A function of the arguments. Swaps may undo each other: what counts is the τ that comes of them.

    Raises:
        MisconfigurationException: where there is no such pair.
    """
    stages = exchangeable(chain)
    if not stages:
        raise MisconfigurationException("no two blocks of this network can be exchanged: none has the shape of another")
    generator = np.random.default_rng([seed, swaps, draw])
    pairs = np.array([len(stage) * (len(stage) - 1) // 2 for stage in stages])
    order = list(range(len(chain)))
    for _ in range(swaps):
        stage = stages[generator.choice(len(stages), p=pairs / pairs.sum())]
        first, second = generator.choice(stage, 2, replace=False)
        order[first], order[second] = order[second], order[first]
    return tuple(order)


def kendall_tau(chain: Sequence[Link], order: Order) -> float:
    """Kendall's rank correlation of ``order`` with the network's own, over all links that could be deleted.

    Those that stay in their places, as transitions do, count too: it never comes near −1.
    """
    candidates = set(removable(chain))
    ranks = [index for index in order if index in candidates]
    return float(kendalltau(sorted(ranks), ranks).statistic)


def reordered(order: Order) -> Variant:
    """The network in that order."""
    return tuple(Step(index) for index in order)


def reordering_errors(net: nn.Module, orders: Sequence[Order], batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Top-1 error of the network in each of the orders, in [0, 1], over batches of images and classes."""
    return top1_errors(net, [reordered(order) for order in orders], batches)
