"""Folding linear layers into each other, in float64.

Each function returns a new layer in the data type, device and memory format of the layer it replaces; the
arithmetic in between is float64, so that the result is off by one rounding to the data type and no more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def fold_batch_norm(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution equal to ``bn(conv(x))`` in evaluation mode: W' = (γ/σ)·W, b' = (b − μ)·γ/σ + β."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("batch normalisation without running statistics can't be folded into a convolution")
    scale = _double(bn.weight) / (_double(bn.running_var) + bn.eps).sqrt()
    weight = _double(conv.weight) * scale[:, None, None, None]
    bias = (_bias(conv) - _double(bn.running_mean)) * scale + _double(bn.bias)
    return _convolution_like(conv, weight, bias)


@torch.no_grad()
def compose_pointwise(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """The convolution equal to ``second(first(x))``, ``second`` being 1×1: W = W₂W₁, b = W₂b₁ + b₂.

    Exact for any kernel and padding of ``first``. (The other order, 1×1 before k×k, is not: zero padding between
    the two drops b₁ at the border.)

    Raises:
        ValueError: If ``second`` is not a plain 1×1 convolution, or ``first`` is grouped.
    """
    if second.kernel_size != (1, 1) or second.stride != (1, 1) or second.padding != (0, 0) or second.groups != 1:
        raise ValueError(f"the second convolution must be a plain 1×1 one, not {second}")
    if first.groups != 1:
        raise ValueError(f"the first convolution must not be grouped: {first}")
    pointwise = _double(second.weight)[:, :, 0, 0]
    weight = torch.einsum("om,mihw->oihw", pointwise, _double(first.weight))
    bias = pointwise @ _bias(first) + _bias(second)
    return _convolution_like(first, weight, bias)


def _convolution_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the geometry of ``conv`` with other parameters."""
    geometry: dict[str, Any] = {
        name: getattr(conv, name) for name in ("in_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    }
    folded = nn.Conv2d(
        out_channels=weight.shape[0],
        **geometry,
        device="meta",  # not initialised, as it gets its parameters here
        dtype=conv.weight.dtype,
    ).to_empty(device=conv.weight.device)
    folded.load_state_dict({"weight": weight, "bias": bias})
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        folded.to(memory_format=torch.channels_last)
    folded.requires_grad_(conv.weight.requires_grad)
    return folded.train(conv.training)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double()


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is not None:
        return _double(conv.bias)
    return torch.zeros(conv.out_channels, dtype=torch.float64, device=conv.weight.device)
