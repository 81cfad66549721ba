"""How much gradient arrives at each depth of a network (claimed of shortcuts: He et al. 2015, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.unravel.layer_responses import on_shortcut
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import BATCH_NORMS
from lit_models.surgery.links import links


class InputGradient(NamedTuple):
    """The gradient at the input of a link."""

    link: str
    depth: int
    """Number of convolutions and linear layers before the link; those on shortcuts do not count."""
    norm: float
    """‖∂L/∂x‖, the root mean square over images, each with the cross-entropy of its own."""


def input_gradients(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[InputGradient]:
    """The gradients that a training step has at the input of each link, from the stem to the head.

    Batch normalisation takes the statistics of the batch, as the running ones say nothing before training; all else is
    in evaluation mode, without dropout and with every block. Nothing of the network is changed.

    Args:
        net: that :func:`lit_models.surgery.links.links` can take apart.
        batches: images (N, C, H, W) and classes (N,).
    """
    chain = links(net)
    depths: list[int] = []
    layers, images = 0, 0
    squares = torch.zeros(len(chain), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal layers
        layers += 1

    hooks = [
        module.register_forward_hook(count)
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not on_shortcut(net, name)
    ]
    try:
        with evaluation_mode(net), batch_statistics(net), torch.enable_grad():
            for pixels, targets in batches:
                x = pixels.detach().clone().requires_grad_()
                inputs, depths, layers = [], [], 0
                for link in chain:
                    inputs.append(x)
                    depths.append(layers)
                    x = link.forward(x)
                loss = F.cross_entropy(x, targets, reduction="sum")
                gradients = torch.autograd.grad(loss, inputs)
                squares += torch.stack([gradient.double().square().sum() for gradient in gradients]).cpu()
                images += len(targets)
    finally:
        for hook in hooks:
            hook.remove()
    norms = squares.div(images).sqrt().tolist()
    return [InputGradient(link.name, *rest) for link, *rest in zip(chain, depths, norms, strict=True)]


def slope(gradients: Sequence[InputGradient]) -> float:
    """Of log ‖∂L/∂x‖ over the depth, by least squares: positive where gradients vanish towards the input.

    The input of the stem, the image, is left out. NaN where a gradient is zero, or there are fewer than two depths.
    """
    depths = [gradient.depth for gradient in gradients[1:]]
    norms = [gradient.norm for gradient in gradients[1:]]
    if len(set(depths)) < 2 or not all(norms):
        return math.nan
    return float(np.polyfit(depths, np.log(norms), 1)[0])


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Within the context batch normalisation takes the statistics of its batch, and its running ones stay."""
    norms = [module for module in net.modules() if isinstance(module, BATCH_NORMS)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks
