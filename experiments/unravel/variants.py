"""Variants of a network: some of its links deleted, or in another order. What they share is computed once.

The variants form a tree by their beginnings, and each edge of it is computed once: all single deletions of L links
cost about L/2 forward passes. The result is that of each variant alone, bit for bit, as the same operations see the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import Link
from lit_models.surgery.links import links


class Step(NamedTuple):
    """A link in a variant."""

    link: int
    """Its index in the network."""
    deleted: bool = False


Variant = tuple[Step, ...]
EnterEdge = Callable[[Variant], object]
"""Is called before each step that is computed, with the beginning of a variant up to and including it."""


def ignore(beginning: Variant) -> None:
    """Do nothing."""


def outputs(
    chain: Sequence[Link], variants: Sequence[Variant], x: Tensor, enter: EnterEdge = ignore
) -> Iterator[tuple[int, Tensor]]:
    """The output of every variant for ``x``, as (index of the variant, output); their order is that of the tree.

    Where variants part, the larger share goes last. So at most log₂(number of variants) + 1 activations wait.
    """
    waiting = [(x, 0, list(range(len(variants))))]
    while waiting:
        x, depth, members = waiting.pop()
        by_step: dict[Step, list[int]] = {}
        for index in members:
            if depth == len(variants[index]):
                yield index, x
            else:
                by_step.setdefault(variants[index][depth], []).append(index)
        if len(by_step) == 1:
            ((step, members),) = by_step.items()
            link = chain[step.link]
            enter(variants[members[0]][: depth + 1])
            x = link.without_branch(x) if step.deleted else link.forward(x)
            waiting.append((x, depth + 1, members))
        else:
            waiting += [(x, depth, group) for group in sorted(by_step.values(), key=len, reverse=True)]


def count_errors(
    chain: Sequence[Link],
    variants: Sequence[Variant],
    images: Tensor,
    targets: Tensor,
    advance: Callable[[], object] = lambda: None,
    enter: EnterEdge = ignore,
) -> Tensor:
    """For each variant, how many images (N, C, H, W) it does not put into their classes (N,): int64 (V,).

    ``advance`` is called after each of them, ``enter`` as :func:`outputs` calls it.
    """
    errors = torch.zeros(len(variants), dtype=torch.int64, device=images.device)
    with torch.inference_mode():
        for index, logits in outputs(chain, variants, images, enter):
            errors[index] = (logits.argmax(1) != targets).sum()
            advance()
    return errors


def top1_errors(
    net: nn.Module, variants: Sequence[Variant], batches: Iterable[tuple[Tensor, Tensor]], enter: EnterEdge = ignore
) -> np.ndarray:
    """Top-1 error of each variant over all batches, in [0, 1]: (V,). The network is only looked at.

    Raises:
        MisconfigurationException: where ``net`` can't be taken apart.
    """
    chain = links(net)
    seen, errors = 0, torch.zeros(len(variants), dtype=torch.int64)
    with evaluation_mode(net):
        for images, targets in batches:
            errors += count_errors(chain, variants, images, targets, enter=enter).cpu()
            seen += len(targets)
    return errors.numpy() / seen
