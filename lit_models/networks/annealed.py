"""The two techniques of VanillaNet as layers: pairs of convolutions to be merged, and series activations.

Besides, a block of both, and what networks of them have in common.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Link, identity
from lit_models.networks.folding import compose_pointwise, fold_batch_norm

BN_EPS = 1e-6

Shortcut = Literal["none", "before", "after"]
"""Where the shortcut around a block is added: before or after its activation (section 4.1, ablation of shortcuts)."""


def annealed_relu(x: Tensor, activation_lambda: Tensor) -> Tensor:
    """φ_λ(x) = (1 − λ)·ReLU(x) + λ·x, exactly ReLU at λ = 0 and the identity at λ = 1 (section 3.1).

    λ is a tensor, so that it stays on the device; at both ends ``lerp`` returns an argument unchanged.
    """
    return torch.lerp(F.relu(x), x, activation_lambda.type_as(x))


class AnnealedConvs(nn.Module):
    """Two convolutions joined by φ_λ: (N, C, H, W) -> (N, C', H', W'). Once merged, a single one.

    Args:
        first: A convolution, with or without batch normalisation after it.
        second: A 1×1 convolution, with or without batch normalisation; ``None`` without deep training.
    """

    def __init__(self, first: nn.Module, second: nn.Module | None) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor, activation_lambda: Tensor) -> Tensor:
        x = self.first(x)
        return x if self.second is None else self.second(annealed_relu(x, activation_lambda))

    def merge(self) -> None:
        if self.second is not None:
            self.first = compose_pointwise(_folded(self.first), _folded(self.second))
            self.second = None
        elif isinstance(self.first, nn.Sequential):
            self.first = _folded(self.first)

    @torch.no_grad()
    def merge_pair(self) -> None:
        """Merge the two convolutions at λ = 1, and keep the batch normalisation after the second.

        What it computes in evaluation mode stays. In training mode the normalisation that is kept removes the shift of
        the one that is folded, whose scale is from then on that of its running statistics, γ/σ, a part of the weights.
        A convolution without bias stays without: its bias is taken from the running mean of what is kept.
        """
        if self.second is None:
            return
        has_bias = _convolution(self.first).bias is not None
        conv = compose_pointwise(_folded(self.first), _convolution(self.second))
        if isinstance(self.second, nn.Sequential):
            norm: Any = self.second[1]
            if not has_bias:
                norm.running_mean -= conv.bias
                conv.bias = None
            self.first = nn.Sequential(conv, norm)
        else:
            self.first = conv
        self.second = None


class SeriesActivation(nn.Module):
    """A_s(x) = Σ a_ij·A(x shifted by (i, j) + b), −n ≤ i, j ≤ n, per channel (equation 6): (N, C, H, W) -> same.

    A depthwise convolution of A(x) is that sum; b is the shift of the batch normalisation before A, and the one that
    follows scales and shifts the sum.

    Args:
        channels: C.
        order: n; the kernel is 2n + 1 wide.
        activation: A, a function of ``torch.nn.functional`` by name.
    """

    def __init__(self, channels: int, order: int = 3, activation: str = "relu") -> None:
        super().__init__()
        if order < 0:
            raise NetworkError(f"series_order is the n of a (2n + 1)-wide kernel and can't be {order}")
        width = 2 * order + 1
        self.activation = activation
        self.conv = nn.Conv2d(channels, channels, width, padding=order, groups=channels, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(channels, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        # In bfloat16 the backward pass of a depthwise convolution takes two to three times as long as in float32, which
        # made steps of a VanillaNet slower in bf16-mixed than in float32.
        return self.bn(without_cpu_autocast(self.conv, getattr(F, self.activation)(x)))

    def merge(self) -> None:
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


def without_cpu_autocast(module: nn.Module, x: Tensor, *others: Tensor) -> Tensor:
    """``module(x, *others)``, under autocast on a CPU in the precision of its weights and rounded afterwards."""
    if not torch.is_autocast_enabled("cpu"):
        return module(x, *others)
    with torch.autocast("cpu", enabled=False):
        return module(x.to(next(module.parameters(), x).dtype), *others).to(x.dtype)


class Block(nn.Module):
    """A pair of convolutions, a max-pool or none, an activation: (N, C, H, W) -> (N, C', H', W').

    The pool precedes the activation. A shortcut goes around whole blocks, never between two convolutions that are
    merged, so merging is exact with it as without. It is the identity, or where the shape changes the max-pool of the
    block and zero channels appended (option A of He et al. 2015).

    Args:
        convs: The convolutions, C -> C' channels; without deep training a single one.
        pool: The max-pool, (H, W) -> (H', W'), or the identity.
        activation: The activation of C' channels.
        shortcut: Where the input is added, see ``Shortcut``.
        keeps_shape: Whether (C, H, W) = (C', H', W').
        extra_channels: C' − C, which a shortcut appends.
    """

    def __init__(
        self,
        convs: AnnealedConvs,
        pool: nn.Module,
        activation: nn.Module,
        shortcut: Shortcut = "none",
        keeps_shape: bool = False,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.convs = convs
        self.pool = pool
        self.activation = activation
        self.shortcut = shortcut
        self.keeps_shape = keeps_shape
        self.extra_channels = extra_channels

    def forward(self, x: Tensor, activation_lambda: Tensor) -> Tensor:
        y = self.branch(x, activation_lambda)
        if self.shortcut != "none":
            y = y + self.skip(x)
        return y if self.shortcut == "after" else self.activation(y)

    def branch(self, x: Tensor, activation_lambda: Tensor) -> Tensor:
        """What the shortcut goes around."""
        y = self.pool(self.convs(x, activation_lambda))
        return self.activation(y) if self.shortcut == "after" else y

    def skip(self, x: Tensor) -> Tensor:
        """What reaches the sum over the shortcut."""
        if self.keeps_shape:
            return x
        return F.pad(self.pool(x), (0, 0, 0, 0, 0, self.extra_channels))

    def link(self, name: str, stage: int, activation_lambda: Tensor) -> Link:
        """The block as a part of a network that is taken apart."""
        has_shortcut = self.shortcut != "none"
        return Link(
            name,
            stage,
            forward=partial(self, activation_lambda=activation_lambda),
            shortcut=identity if self.keeps_shape else self.skip if has_shortcut else None,
            branch=partial(self.branch, activation_lambda=activation_lambda) if has_shortcut else None,
            activation=self.activation if self.shortcut == "before" else None,
            transition=not self.keeps_shape,
        )


def with_bn(conv: nn.Conv2d, eps: float = BN_EPS) -> nn.Sequential:
    """``conv`` with batch normalisation after it."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps))


def deep_conv(conv: nn.Conv2d, deep_training: bool) -> AnnealedConvs:
    """``conv`` with batch normalisation, in deep training before a 1×1 convolution with which it is merged.

    The 1×1 comes second, as only then the merged convolution is exact at a zero-padded border. ε is that of residual
    networks.
    """
    second = nn.Conv2d(conv.out_channels, conv.out_channels, 1, bias=False) if deep_training else None
    return AnnealedConvs(with_bn(conv, eps=1e-5), None if second is None else with_bn(second, eps=1e-5))


def series_or_relu(channels: int, series_order: int | None) -> nn.Module:
    """A series activation of that order, or ReLU for ``None``."""
    return nn.ReLU() if series_order is None else SeriesActivation(channels, series_order)


def check_lambda(value: float) -> None:
    """Raises ``NetworkError`` for a λ outside [0, 1]."""
    if not 0 <= value <= 1:
        raise NetworkError(f"λ lies in [0, 1], and {value} does not")


def check_mergeable(activation_lambda: Tensor) -> None:
    """Raises ``NetworkError`` if λ ≠ 1, as the activations between the convolutions are not the identity then."""
    if activation_lambda != 1:
        raise NetworkError(
            f"λ is {activation_lambda.item():.4g}: the convolutions can be merged at λ = 1 only, where the"
            " activation between them is the identity; train until the annealing has ended"
        )


def merge_layers(net: nn.Module) -> None:
    """Merge every pair of convolutions and every series activation of ``net`` in place. A second call does nothing."""
    for module in list(net.modules()):
        if isinstance(module, AnnealedConvs | SeriesActivation):
            module.merge()


class AnnealedNetwork(nn.Module):
    """What networks with these layers have in common: λ, and how they are merged."""

    activation_lambda: Tensor
    """λ, a buffer of shape ``()``."""
    deep_training: bool
    """Whether there are pairs of convolutions to be merged at λ = 1."""

    def set_activation_lambda(self, value: float) -> None:
        """Set λ. Raises ``NetworkError`` outside [0, 1]."""
        check_lambda(value)
        self.activation_lambda.fill_(value)

    def merge_pairs(self) -> None:
        """Merge every pair of convolutions in place; the network is then what ``deep_training=False`` builds.

        Raises:
            NetworkError: If λ ≠ 1.
        """
        if self.deep_training:
            check_mergeable(self.activation_lambda)
        for module in self.modules():
            if isinstance(module, AnnealedConvs):
                module.merge_pair()
        self.deep_training = False

    def reparameterize(self) -> None:
        """Merge every pair of convolutions, every batch normalisation and every series activation (section 3.1).

        Raises:
            NetworkError: If λ ≠ 1 in deep training, as the activations between the convolutions are not the identity
                then.
        """
        if self.deep_training:
            check_mergeable(self.activation_lambda)
        merge_layers(self)


def _convolution(layer: nn.Module) -> nn.Conv2d:
    """Of ``layer``, which may have batch normalisation after it."""
    conv = layer[0] if isinstance(layer, nn.Sequential) else layer
    assert isinstance(conv, nn.Conv2d)
    return conv


def _folded(layer: nn.Module) -> nn.Conv2d:
    """``layer``, a convolution with or without batch normalisation after it, as one convolution."""
    if isinstance(layer, nn.Sequential):
        conv, bn = layer
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        return fold_batch_norm(conv, bn)
    assert isinstance(layer, nn.Conv2d)
    return layer
