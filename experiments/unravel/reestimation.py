"""Batch normalisation estimated anew for each variant of a network.

A variant gets the statistics that it has on training images, as ``torch.optim.swa_utils.update_bn`` computes them: the
mean over batches of each batch's mean and unbiased variance, while each layer is normalised by its own batch. A layer
depends on what comes before it alone, so variants share the statistics of their common beginnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from experiments.unravel.variants import EnterEdge, Variant, outputs
from lit_models.interfaces import BATCH_NORMS, Link


@contextmanager
def reestimated(
    net: nn.Module,
    chain: Sequence[Link],
    variants: Sequence[Variant],
    batches: Iterable[Tensor],
    advance: Callable[[], object] = lambda: None,
) -> Iterator[EnterEdge]:
    """Statistics for each of the variants, within the context; afterwards those of the network are in their places.

    Args:
        net: in evaluation mode.
        chain: its links.
        variants: that are evaluated within the context.
        batches: training images (N, C, H, W); without any, the statistics of the network stay.
        advance: is called after each variant of each batch.

    Yields:
        What :func:`~experiments.unravel.variants.outputs` calls before each step of a variant.
    """
    norms = [norm for norm in net.modules() if isinstance(norm, BATCH_NORMS) and norm.running_mean is not None]
    own = [(norm.running_mean, norm.running_var) for norm in norms]
    known: dict[tuple[Variant, nn.Module], tuple[Tensor, Tensor, int]] = {}
    edge: Variant = ()
    estimating = True

    def enter(beginning: Variant) -> None:
        nonlocal edge
        edge = beginning

    def use_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if estimating:
            x = inputs[0].transpose(0, 1).flatten(1)  # (C, N·H·W)
            variance, mean = torch.var_mean(x, 1, correction=0)
            norm.running_mean, norm.running_var = mean, variance
            nothing = torch.zeros_like(mean)
            means, variances, count = known.get((edge, norm), (nothing, nothing, 0))
            unbiased = variance * (x.shape[1] / max(x.shape[1] - 1, 1))
            known[edge, norm] = means + mean, variances + unbiased, count + 1
        elif known:
            means, variances, count = known[edge, norm]
            norm.running_mean, norm.running_var = means / count, variances / count

    hooks = [norm.register_forward_pre_hook(use_statistics) for norm in norms]
    try:
        with torch.inference_mode():
            for images in batches:
                for _ in outputs(chain, variants, images, enter):
                    advance()
        estimating = False
        yield enter
    finally:
        for hook in hooks:
            hook.remove()
        for norm, (mean, variance) in zip(norms, own, strict=True):
            norm.running_mean, norm.running_var = mean, variance
