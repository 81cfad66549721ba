"""Gradients along single paths of a residual network (Veit et al. 2016, section 5 and figure 6b).

The forward pass is that of the whole network. On the way back, a path of length k goes through f in k of the n
residual links, and through S in the others.

Everything here is for evaluation mode: then an image does not depend on its batch, and the gradients of all 2^n paths
add up to that of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import Link
from lit_models.surgery.links import links


def sampled_norms(net: nn.Module, images: Tensor, targets: Tensor, samples: int, seed: int = 0) -> Tensor:
    """Gradient norms along random paths at the input of the residual stack, by length k = 0 … n: (n + 1, samples).

    Args:
        net: that ``lit_models.surgery.links`` can take apart; it is evaluated, and left as it was.
        images: (N, C, H, W).
        targets: classes (N,), or probabilities (N, K).
        samples: of each length.
        seed: of the samples.
    """
    chain = links(net)
    start, end = residual_stack(chain)
    with evaluation_mode(net):
        inputs, gradients = stack_gradients(chain, images, targets)
        forks = [Fork(link, x) for link, x in zip(chain[start:end], inputs, strict=False)]
    blocks = sum(fork.residual for fork in forks)
    norms = [
        norm_per_image(path_gradient(forks, gradients[-1], draw_path(blocks, length, seed, sample)))
        for length in range(blocks + 1)
        for sample in range(samples)
    ]
    return torch.stack(norms).reshape(blocks + 1, samples)


def is_residual(link: Link) -> bool:
    """Whether it is a sum of a shortcut and a branch."""
    return link.shortcut is not None and link.branch is not None


def residual_stack(chain: Sequence[Link]) -> tuple[int, int]:
    """Indices of the first residual link, and of what follows the last one.

    Raises:
        MisconfigurationException: where there is none.
    """
    residual = [index for index, link in enumerate(chain) if is_residual(link)]
    if not residual:
        raise MisconfigurationException("this network has no residual branches, so it is a single path")
    return residual[0], residual[-1] + 1


class StackGradients(NamedTuple):
    """One forward and backward pass through the residual stack of L links; lists of L + 1 tensors (N, …)."""

    inputs: list[Tensor]
    """Of each link, and at the end the output of the stack."""
    gradients: list[Tensor]
    """Of the loss, with respect to ``inputs``."""


def stack_gradients(chain: Sequence[Link], images: Tensor, targets: Tensor) -> StackGradients:
    """The ordinary gradients of the cross-entropy, **summed** over images: each has that of its own loss.

    Args:
        chain: the whole network, in evaluation mode.
        images: (N, C, H, W).
        targets: classes (N,), or probabilities (N, K).
    """
    start, end = residual_stack(chain)
    with torch.no_grad():
        x = images
        for link in chain[:start]:
            x = link.forward(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        inputs = [x]
        for link in chain[start:end]:
            x = link.forward(x)
            inputs.append(x)
        for link in chain[end:]:
            x = link.forward(x)
        loss = F.cross_entropy(x, targets, reduction="sum")
        gradients = torch.autograd.grad(loss, inputs)
    return StackGradients([x.detach() for x in inputs], list(gradients))


class Fork:
    """A link's forward pass at ``x``, with one way back through its shortcut and another through its branch.

    What follows the sum, as an outer ReLU, applies to both ways as the full forward pass left it. A link without a
    branch has the one way alone, as its ``shortcut``.
    """

    def __init__(self, link: Link, x: Tensor) -> None:
        self.residual = is_residual(link)
        # Leaves of their own: autograd then visits the way that is asked for, and no weight.
        self._ways = [x.detach().requires_grad_() for _ in range(1 + self.residual)]
        with torch.enable_grad():
            if link.shortcut is not None and link.branch is not None:
                total = link.shortcut(self._ways[0]) + link.branch(self._ways[1])
                self.output = total if link.activation is None else link.activation(total)
            else:
                self.output = link.forward(self._ways[0])

    def through_shortcut(self, gradient: Tensor) -> Tensor:
        """The gradient of the output, taken back to the input through S alone."""
        return torch.autograd.grad(self.output, self._ways[0], gradient, retain_graph=True)[0]

    def through_branch(self, gradient: Tensor) -> Tensor:
        """Through f alone."""
        return torch.autograd.grad(self.output, self._ways[1], gradient, retain_graph=True)[0]

    def through_both(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Through S alone and through f alone."""
        shortcut, branch = torch.autograd.grad(self.output, self._ways, gradient, retain_graph=True)
        return shortcut, branch


def path_gradient(forks: Sequence[Fork], gradient: Tensor, branches: AbstractSet[int]) -> Tensor:
    """The gradient along a single path, at the input of the first fork.

    Args:
        forks: of consecutive links.
        gradient: at the output of the last.
        branches: on the path, as indices into the residual ones of ``forks``; all others are passed by their shortcuts.
    """
    index = sum(fork.residual for fork in forks)
    for fork in reversed(forks):
        index -= fork.residual
        on_path = fork.residual and index in branches
        gradient = fork.through_branch(gradient) if on_path else fork.through_shortcut(gradient)
    return gradient


def draw_path(blocks: int, length: int, seed: int, sample: int) -> frozenset[int]:
    """``length`` of ``blocks`` branches, uniformly and without replacement; a function of the arguments."""
    generator = np.random.default_rng([seed, length, sample])
    return frozenset(generator.choice(blocks, length, replace=False).tolist())


def norm_per_image(gradient: Tensor) -> Tensor:
    """The root mean square over images (N, …) of the norms of their gradients, a scalar in float64.

    It is √N times the norm of the gradient of the mean loss, and does not depend on N.
    """
    return gradient.double().square().sum().div(len(gradient)).sqrt()
