"""Lesions: links of a network deleted, as a building block whose branch is taken out (Veit et al. 2016, section 4).

Nothing is tuned afterwards, nor estimated anew but for batch normalisation where that is asked for. A residual link
leaves its shortcut behind, a plain one nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from experiments.unravel.reestimation import reestimated
from experiments.unravel.variants import Step, Variant, top1_errors
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import Link
from lit_models.surgery.links import links

Lesion = frozenset[int]
"""Indices of the deleted links; an empty one is the whole network."""


def removable(chain: Sequence[Link]) -> list[int]:
    """Indices of the links that can be deleted."""
    return [index for index, link in enumerate(chain) if link.removable]


def single_lesions(chain: Sequence[Link]) -> list[Lesion]:
    """Each link alone, in forward order (figure 3)."""
    return [frozenset([index]) for index in removable(chain)]


def contiguous_lesions(chain: Sequence[Link], size: int) -> list[Lesion]:
    """Each run of ``size`` links that follow each other among those that can be deleted."""
    candidates = removable(chain)
    return [frozenset(candidates[first : first + size]) for first in range(len(candidates) - size + 1)]


def random_lesion(chain: Sequence[Link], size: int, seed: int, draw: int) -> Lesion:
    """``size`` links, uniformly and without replacement (figure 5a); a function of the arguments.

    Raises:
        MisconfigurationException: where fewer can be deleted.
    """
    candidates = removable(chain)
    if not 0 <= size <= len(candidates):
        raise MisconfigurationException(
            f"{size} blocks or layers can't be deleted of the {len(candidates)} that can be"
        )
    return frozenset(np.random.default_rng([seed, size, draw]).choice(candidates, size, replace=False).tolist())


def lesioned(chain: Sequence[Link], lesion: Lesion) -> Variant:
    """The network without the links of ``lesion``."""
    return tuple(Step(index, index in lesion) for index in range(len(chain)))


def lesion_errors(
    net: nn.Module,
    lesions: Sequence[Lesion],
    batches: Iterable[tuple[Tensor, Tensor]],
    reestimate_on: Iterable[Tensor] = (),
) -> np.ndarray:
    """Top-1 error of the network with each of the lesions, in [0, 1].

    Args:
        net: is evaluated, and left as it was.
        lesions: of its links.
        batches: images (N, C, H, W) and classes (N,).
        reestimate_on: batches of training images (N, C, H, W), on which batch normalisation is estimated anew for each
            lesion; without any, the network keeps its statistics.
    """
    chain = links(net)
    variants = [lesioned(chain, lesion) for lesion in lesions]
    with evaluation_mode(net), reestimated(net, chain, variants, reestimate_on) as enter:
        return top1_errors(net, variants, batches, enter)
