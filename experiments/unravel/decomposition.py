"""The gradient of a residual network as a sum over path lengths, exactly.

Backward through y = S(x) + f(x) is linear: the gradient at x is (S' + f')ᵀ g. Give each branch a factor z, and the
gradient at the input of the stack becomes a polynomial, ∏ (S_l' + z f_l')ᵀ g, whose coefficient of z^k is the sum over
all C(L, k) paths of length k. Carrying the coefficients from the end of the stack to its start takes l backward passes
of the l-th branch from the end, about L/2 through the whole stack, none of which needs the gradients of weights.

The coefficients add up to the gradient. Their norms are those of sums, in which paths cancel; C(n, k) times the mean
norm of single paths (Veit et al. 2016, figure 6c) does not see that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from experiments.unravel.path_gradients import Fork, norm_per_image, residual_stack, stack_gradients
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import Link
from lit_models.surgery.links import links


class Weights(NamedTuple):
    """How much each length is of the gradient g; tensors (L + 1,) in float64."""

    norm: Tensor
    """‖g_k‖, see ``norm_per_image``."""
    cosine: Tensor
    """Of the angle between g_k and g, over the whole batch; 0 where a term is zero."""
    share: Tensor
    """⟨g_k, g⟩ / ‖g‖². The shares add up to 1; where paths cancel, some are negative."""


def decompose(net: nn.Module, images: Tensor, targets: Tensor, longest: int | None = None) -> Weights:
    """Weigh the lengths k = 0 … L of the paths through the residual stack of a network.

    Args:
        net: that ``lit_models.surgery.links`` can take apart; it is evaluated, and left as it was.
        images: (N, C, H, W).
        targets: classes (N,), or probabilities (N, K).
        longest: see ``gradients_by_length``.
    """
    chain = links(net)
    start, end = residual_stack(chain)
    with evaluation_mode(net):
        inputs, gradients = stack_gradients(chain, images, targets)
        terms = gradients_by_length(chain[start:end], inputs, gradients[-1], longest)
    return weigh(terms, gradients[0])


def gradients_by_length(
    chain: Sequence[Link], inputs: Sequence[Tensor], gradient: Tensor, longest: int | None = None
) -> list[Tensor]:
    """The terms g_0, g_1, … of the gradient at the input of the first link, which add up to it.

    Memory is that of L + 1 gradients and of the activations of one link: fewer images at once need less.

    Args:
        chain: consecutive links in evaluation mode, L of them residual.
        inputs: of each, (N, …).
        gradient: at the output of the last.
        longest: leave out longer paths, and save their time. What is left out is the gradient minus the sum.

    Returns:
        L + 1 tensors (N, …), or ``longest`` + 1.
    """
    terms = [gradient]
    for link, x in zip(reversed(chain), reversed(inputs[: len(chain)]), strict=True):
        fork = Fork(link, x)
        if not fork.residual:
            terms = [fork.through_shortcut(term) for term in terms]
            continue
        shift = torch.zeros((), dtype=gradient.dtype, device=gradient.device)
        # One term at a time: a batch of images fills the device, and several terms at once took longer on a CPU.
        for length, term in enumerate(terms):
            by_shortcut, by_branch = fork.through_both(term)
            terms[length], shift = by_shortcut + shift, by_branch
        terms.append(shift)
        if longest is not None:
            del terms[longest + 1 :]
    return terms


def weigh(terms: Sequence[Tensor], gradient: Tensor) -> Weights:
    """Compare the terms of a gradient, each (N, …), with the gradient itself."""
    norms = torch.stack([norm_per_image(term) for term in terms])
    whole = norm_per_image(gradient)
    products = torch.stack([(term.double() * gradient.double()).sum() for term in terms]) / len(gradient)
    return Weights(norms, (products / (norms * whole)).nan_to_num(0.0), products / whole**2)


def unexplained(terms: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """‖g − Σ g_k‖ / ‖g‖: rounding, and what ``longest`` left out."""
    total = torch.stack(list(terms)).sum(0)
    return norm_per_image(gradient - total) / norm_per_image(gradient)
