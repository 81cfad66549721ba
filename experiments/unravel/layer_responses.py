"""How strongly the layers of a network respond (He et al. 2015, section 4.2 and figure 7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.evaluation import evaluation_mode

SHORTCUT = "downsample"
"""The name that ours, torchvision's and timm's residual blocks give to S; stages of ConvNeXt have one on the way."""


@torch.inference_mode()
def layer_responses(net: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
    """The standard deviation of each convolution's output, over images, channels and pixels.

    It is taken after batch normalisation where that follows, and before what comes next, be it ReLU or addition.
    Convolutions on shortcuts do not count as layers.

    Args:
        net: is evaluated, and left as it was.
        batches: images (N, C, H, W).

    Returns:
        By name of the convolution, in the order in which they run.
    """
    moments: dict[str, Tensor] = {}
    latest: dict[str, Any] = {}  # the convolution that ran last

    def convolution(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            latest.update(name=name, output=output, before=moments.get(name, 0.0))
            moments[name] = latest["before"] + _moments(output)

        return hook

    def normalisation(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if inputs[0] is latest.get("output"):
            moments[latest["name"]] = latest["before"] + _moments(output)

    hooks = []
    for name, module in net.named_modules():
        if on_shortcut(net, name):
            continue
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(convolution(name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_hook(normalisation))
    try:
        with evaluation_mode(net):
            for images in batches:
                net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _standard_deviation(*sums.tolist()) for name, sums in moments.items()}


def on_shortcut(net: nn.Module, name: str) -> bool:
    """Whether the module lies in the shortcut of a block, not in what a stage does before its ``blocks``."""
    parts = name.split(".")
    return SHORTCUT in parts and not hasattr(net.get_submodule(".".join(parts[: parts.index(SHORTCUT)])), "blocks")


def _moments(x: Tensor) -> Tensor:
    """Number, sum and sum of squares of the values; at once, for a ReLU in place may follow."""
    x = x.double()
    return torch.stack([torch.full_like(x.sum(), x.numel()), x.sum(), x.square().sum()])


def _standard_deviation(count: float, total: float, squares: float) -> float:
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5
