"""Strides turned into dilation: the same network with denser maps (the algorithme à trous).

At every ``stride``-th pixel a network that was made denser computes what it computed before, away from the borders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Backbone

T = TypeVar("T")


def stride_of(layer: nn.Module) -> int:
    """By how much a layer divides height and width; a shortcut (``downsample``) follows the branch it goes around."""
    stride = 1
    for name, part in layer.named_modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d) and not _in_shortcut(name):
            stride *= _side(part.stride)
    return stride


def at_pools(layers: Iterable[nn.Module], start: T, after: Callable[[T, nn.Module], T]) -> tuple[T, ...]:
    """What each max-pool of a chain gets, and what the chain ends with.

    Args:
        layers: Of which each gets what the one before gives.
        start: What the first one gets.
        after: What a layer makes of what it gets.
    """
    value, kept = start, []
    for layer in layers:
        if isinstance(layer, MAX_POOLS):
            kept.append(value)
        value = after(value, layer)
    return (*kept, value)


def maps_at_pools(layers: Iterable[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
    """The last map of each resolution of a chain whose max-pools alone are strided, but for its first layer."""
    return at_pools(layers, images, lambda x, layer: layer(x))


def strides_at_pools(layers: Iterable[nn.Module]) -> tuple[int, ...]:
    """Of :func:`maps_at_pools`, in pixels of the image."""
    return at_pools(layers, 1, lambda stride, layer: stride * stride_of(layer))


def check_stride(net: Backbone, output_stride: int) -> None:
    """Raises ``NetworkError`` for a stride that no map of ``net`` has."""
    if output_stride not in net.feature_strides:
        raise NetworkError(
            f"output_stride is {output_stride}; the maps of this {type(net).__name__} have strides of"
            f" {', '.join(map(str, net.feature_strides))}"
        )


def dilate(net: nn.Module, layers: Sequence[str], output_stride: int) -> None:
    """Take the strides of ``net`` beyond ``output_stride``, in place, and dilate what follows them instead.

    The first block of a stage whose stride is taken has the dilation of the stage before in its strided convolution, as
    with the authors of Bag of Tricks, torchvision and timm. A shortcut that averages before it projects (ResNet-D)
    loses the average, as with these authors; timm keeps one of 2×2 pixels.

    Args:
        net: The network.
        layers: Names of its modules in forward order; each gets the output of the one before.
        output_stride: Pixels of the image in one of the coarsest map.
    """
    total = rate = 1
    for name in layers:
        stride = stride_of(net.get_submodule(name))
        if rate == 1 and total * stride <= output_stride:
            total *= stride
        else:
            rate = _make_dense(net, name, rate)


def _make_dense(net: nn.Module, layer: str, rate: int) -> int:
    """Take the strides of a layer that sees its input at ``rate``; what follows it is to be dilated by the result."""
    rate_before = rate
    for part_name, part in list(net.get_submodule(layer).named_modules(prefix=layer)):
        in_shortcut = _in_shortcut(part_name)
        replacement: nn.Module | None = None
        if isinstance(part, nn.Conv2d):
            stride, dilation = _side(part.stride), rate_before if in_shortcut else rate
            part.stride, part.dilation = (1, 1), (dilation, dilation)
            part.padding = tuple(dilation * _side(padding) for padding in part.padding)
            rate *= 1 if in_shortcut else stride
        elif isinstance(part, nn.MaxPool2d):
            replacement = DenseMaxPool(_side(part.kernel_size), rate, _side(part.padding))
            rate *= _side(part.stride)
        elif isinstance(part, nn.AvgPool2d):
            replacement = nn.Identity()
        if replacement is not None:
            parent, _, attribute = part_name.rpartition(".")
            setattr(net.get_submodule(parent), attribute, replacement)
    return rate


def _in_shortcut(name: str) -> bool:
    return "downsample" in name.split(".")


def _side(value: int | str | tuple[int, ...]) -> int:
    """Of what is given for height and width: our networks have squares alone."""
    if isinstance(value, str):
        raise NetworkError(f"a convolution with padding={value!r} can't be dilated: give the padding in pixels")
    return value if isinstance(value, int) else value[0]


class DenseMaxPool(nn.Module):
    """A max-pool without stride whose window has gaps: (N, C, H, W) -> (N, C, H, W).

    Args:
        kernel_size: Pixels of the window on a side.
        dilation: Distance between them.
        padding: Pixels of the window above and left of the pixel that it is computed for.
    """

    def __init__(self, kernel_size: int, dilation: int, padding: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.before = padding * dilation
        self.after = (kernel_size - 1 - padding) * dilation

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (self.before, self.after, self.before, self.after), value=float("-inf"))
        return F.max_pool2d(x, self.kernel_size, stride=1, dilation=self.dilation)


MAX_POOLS = (nn.MaxPool2d, DenseMaxPool)
