"""VanillaNet: train deep, run shallow (Chen, Wang, Guo, Tao, NeurIPS 2023).

Two convolutions joined by an activation that is annealed to the identity are one convolution at the end of training.
A series of shifted activations gives the shallow network that remains its non-linearity.

The network has one form in training and another after :meth:`VanillaNet.reparameterize`::

    stem    conv k×k → BN → φ_λ → conv 1×1 → BN              → series      conv k×k          → series
    block   conv 1×1 → BN → φ_λ → conv 1×1 → BN → max-pool → series      conv 1×1 → max-pool → series
    head    mean → dropout → conv 1×1 → BN → φ_λ → conv 1×1                 mean → dropout → conv 1×1
"""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate, pairwise
from operator import mul
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Link, identity
from lit_models.networks.dilation import DenseMaxPool, check_stride, dilate, stride_of
from lit_models.networks.folding import compose_pointwise, fold_batch_norm
from lit_models.settings import keeps_arguments

BN_EPS = 1e-6

Shortcut = Literal["none", "before", "after"]
"""Where the shortcut around a block is added: before or after its activation (section 4.2, ablation of shortcuts)."""

# Output width of each block in multiples of the stem's, and the stride of its max-pool (layer table of the paper).
LAYERS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    5: ((2, 4, 8), (2, 2, 2)),
    6: ((2, 4, 8, 8), (2, 2, 2, 1)),
    **{depth: ((1, 2, *(4,) * (depth - 6), 8, 8), (1, 2, 2, *(1,) * (depth - 7), 2, 1)) for depth in range(7, 14)},
}
# Side of the maps after each of the three max-pools of the ada-pool variant, whatever the size of the images.
ADAPTIVE_SIDES = (38, 19, 10)


def annealed_relu(x: Tensor, activation_lambda: Tensor) -> Tensor:
    """φ_λ(x) = (1 − λ)·ReLU(x) + λ·x, exactly ReLU at λ = 0 and the identity at λ = 1 (section 3.1).

    λ is a tensor, so that it stays on the device; at both ends ``lerp`` returns an argument unchanged.
    """
    return torch.lerp(F.relu(x), x, activation_lambda.to(x.dtype))


class AnnealedConvs(nn.Module):
    """Two convolutions joined by φ_λ: (N, C, H, W) -> (N, C', H', W'). Once merged, a single one."""

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


class SeriesActivation(nn.Module):
    """A_s(x) = Σ a_ij·A(x shifted by (i, j) + b), −n ≤ i, j ≤ n, per channel (equation 6): (N, C, H, W) -> same.

    A depthwise convolution of A(x) is that sum; batch normalisation, which follows it, supplies the biases.

    Args:
        channels: C.
        order: n; the kernel is 2n + 1 wide.
        activation: A, a function of ``torch.nn.functional`` by name.
    """

    def __init__(self, channels: int, order: int = 3, activation: str = "relu") -> None:
        super().__init__()
        width = 2 * order + 1
        self.activation = activation
        self.conv = nn.Conv2d(channels, channels, width, padding=order, groups=channels, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(channels, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(getattr(F, self.activation)(x)))

    def merge(self) -> None:
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


class Block(nn.Module):
    """Two 1×1 convolutions, a max-pool, a series activation: (N, C, H, W) -> (N, C', H', W').

    The pool precedes the activation. A shortcut goes around whole blocks, never between two convolutions that are
    merged, so merging is exact with it as without. It is the identity, or where the shape changes the max-pool of the
    block and zero channels appended (option A of He et al. 2015).

    Args:
        convs: The convolutions, C -> C' channels.
        pool: The max-pool, (H, W) -> (H', W').
        activation: The series activation of C' channels.
        shortcut: Where the input is added, see ``Shortcut``.
        keeps_shape: Whether (C, H, W) = (C', H', W').
    """

    def __init__(
        self,
        convs: AnnealedConvs,
        pool: nn.Module,
        activation: SeriesActivation,
        shortcut: Shortcut = "none",
        keeps_shape: bool = False,
    ) -> None:
        super().__init__()
        self.convs = convs
        self.pool = pool
        self.activation = activation
        self.shortcut = shortcut
        self.keeps_shape = keeps_shape

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
        return F.pad(self.pool(x), (0, 0, 0, 0, 0, self.activation.conv.out_channels - x.shape[1]))

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


@keeps_arguments
class VanillaNet(nn.Module):
    """VanillaNet-5 … 13: (N, C, H, W) images to (N, K) logits.

    VanillaNet-13-1.5× is ``depth=13, width=768``; its ada-pool variant adds ``adaptive_pool=True, stem_stride=3``.
    For small images lower ``stem_kernel`` and ``stem_stride`` (and ``width``): 2 and 2 give a 32×32 image the
    16×16 map that a 64×64 image has after the usual stem.

    Args:
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        depth: Number of layers once merged, 5 to 13.
        width: Output channels of the stem; those of the blocks are multiples of it.
        stem_kernel: Kernel width of the stem's first convolution.
        stem_stride: Stride of the stem's first convolution.
        series_order: n of the series activations; 0 leaves a scaled and shifted activation.
        activation: Base activation A of the series, a function of ``torch.nn.functional`` by name.
        adaptive_pool: Pool to maps of 38×38, 19×19 and 10×10, whatever the size of the images, instead of halving them.
        dropout: Probability before the classifier.
        reparameterized: Build the merged form, as which a merged checkpoint is loaded.
        shortcut: Where the input of a block is added to its output, see ``Shortcut``.

    Raises:
        NetworkError: For a depth, width, order or activation that does not exist; in ``forward``, for images that the
            strides leave nothing of.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        depth: int = 6,
        width: int = 512,
        stem_kernel: int = 4,
        stem_stride: int = 4,
        series_order: int = 3,
        activation: str = "relu",
        adaptive_pool: bool = False,
        dropout: float = 0.0,
        reparameterized: bool = False,
        shortcut: Shortcut = "none",
    ) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise NetworkError(f"VanillaNet has a depth of {min(LAYERS)} to {max(LAYERS)}, not {depth}")
        if width < 1:
            raise NetworkError(f"width is {width}; give the channels of the stem, at least 1")
        if series_order < 0:
            raise NetworkError(f"series_order is the n of a (2n + 1)-wide kernel and can't be {series_order}")
        if not callable(getattr(F, activation, None)):
            raise NetworkError(f"activation {activation!r} is not a function of torch.nn.functional")
        multiples, strides = LAYERS[depth]
        widths = [width, *(width * multiple for multiple in multiples)]
        sides = iter(ADAPTIVE_SIDES)
        pools = [
            nn.Identity()
            if stride == 1
            else nn.AdaptiveMaxPool2d(next(sides))
            if adaptive_pool
            else nn.MaxPool2d(stride)
            for stride in strides
        ]
        padding = (stem_kernel - stem_stride + 1) // 2

        stem = nn.Conv2d(in_channels, width, stem_kernel, stride=stem_stride, padding=max(padding, 0))
        self.stem = Block(
            AnnealedConvs(_with_bn(stem), _with_bn(nn.Conv2d(width, width, 1))),
            nn.Identity(),
            SeriesActivation(width, series_order, activation),
        )
        self.blocks = nn.ModuleList(
            Block(
                AnnealedConvs(_with_bn(nn.Conv2d(c_in, c_in, 1)), _with_bn(nn.Conv2d(c_in, c_out, 1))),
                pool,
                SeriesActivation(c_out, series_order, activation),
                shortcut,
                keeps_shape=stride == 1 and c_in == c_out,
            )
            for (c_in, c_out), stride, pool in zip(pairwise(widths), strides, pools, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.num_features = widths[-1]
        self.head = _head(self.num_features, num_classes)
        self.strides = strides
        self._ends_resolution = [*(stride > 1 for stride in strides), True]
        """Of the stem and each block, whether the next one pools or none follows."""
        self.smallest_image = stem_stride * (1 if adaptive_pool else math.prod(strides))
        self.activation_lambda: Tensor
        self.register_buffer("activation_lambda", torch.tensor(0.0))
        self.apply(_initialise)
        if reparameterized:
            self.set_activation_lambda(1.0)
            self._merge()

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_features, H', W')."""
        x = self._stem(images)
        for block in self.blocks:
            x = block(x, self.activation_lambda)
        return x

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Of the last map of each resolution."""
        strides = accumulate(map(self._stride, range(len(self.blocks))), mul, initial=stride_of(self.stem))
        return tuple(stride for stride, ends in zip(strides, self._ends_resolution, strict=True) if ends)

    def _stride(self, block: int) -> int:
        dilated = isinstance(self.blocks[block].pool, DenseMaxPool)
        return 1 if dilated else self.strides[block]

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the last map of each resolution."""
        parts = [self.stem, *self.blocks]
        channels = [part.activation.conv.out_channels for part in parts]
        return tuple(width for width, ends in zip(channels, self._ends_resolution, strict=True) if ends)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the last map of each resolution.

        Of VanillaNet-13 these are the maps after blocks 0, 1, 8 and 10, as in the authors' detectors.
        """
        x = self._stem(images)
        outputs = [x, *(x := block(x, self.activation_lambda) for block in self.blocks)]
        return tuple(output for output, ends in zip(outputs, self._ends_resolution, strict=True) if ends)

    def dilate(self, output_stride: int) -> None:
        """See :func:`~lit_models.networks.dilation.dilate`; adaptive pools have no windows to dilate."""
        check_stride(self, output_stride)
        if any(isinstance(module, nn.AdaptiveMaxPool2d) for module in self.modules()):
            raise NetworkError("a VanillaNet with adaptive_pool can't be dilated: build it without")
        dilate(self, ["stem", *(f"blocks.{i}" for i in range(len(self.blocks)))], output_stride)

    def links(self) -> list[Link]:
        """Stem, blocks and head. A block with a shortcut can be deleted, and so can one that keeps the shape."""
        chain, stage = [Link("stem", 0, self._stem)], 0
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            stage += not block.keeps_shape
            chain.append(block.link(f"blocks.{i}", stage, self.activation_lambda))
        return [*chain, Link("head", stage + 1, self.forward_head)]

    def _stem(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.smallest_image:
            raise NetworkError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels vanish in this network, which halves its maps"
                f" until {self.smallest_image} pixels are one: lower stem_stride"
            )
        return self.stem(images, self.activation_lambda)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> logits (N, K), or with ``pre_logits`` what the classifier gets."""
        pooled = self.dropout(features.mean((2, 3), keepdim=True))
        return (pooled if pre_logits else self.head(pooled, self.activation_lambda)).flatten(1)

    def get_classifier(self) -> nn.Module:
        """The head: two convolutions, or one once merged."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one of ``num_classes`` classes; 0 removes it."""
        self.head = _head(self.num_features, num_classes)
        self.head.apply(_initialise)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's way to number layers: the stem 0, block i → i + 1, the head, which nothing matches, last."""
        return {"stem": r"stem", "blocks": r"blocks\.(\d+)"}

    def set_activation_lambda(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise NetworkError(f"λ lies in [0, 1], and {value} does not")
        self.activation_lambda.fill_(value)

    def reparameterize(self) -> None:
        """Merge every pair of convolutions and every batch normalisation (section 3.1); see the module's table.

        Raises:
            NetworkError: If λ ≠ 1, as the activations between the convolutions are not the identity then.
        """
        if self.activation_lambda != 1:
            raise NetworkError(
                f"λ is {self.activation_lambda.item():.4g}: the convolutions can be merged at λ = 1 only, where the"
                " activation between them is the identity; train until the annealing has ended"
            )
        self._merge()

    def _merge(self) -> None:
        for module in list(self.modules()):
            if isinstance(module, AnnealedConvs | SeriesActivation):
                module.merge()


def _head(num_features: int, num_classes: int) -> AnnealedConvs:
    if num_classes == 0:
        return AnnealedConvs(nn.Identity(), None)
    return AnnealedConvs(_with_bn(nn.Conv2d(num_features, num_classes, 1)), nn.Conv2d(num_classes, num_classes, 1))


def _with_bn(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps=BN_EPS))


def _folded(layer: nn.Module) -> nn.Conv2d:
    """``layer``, a convolution with or without batch normalisation after it, as one convolution."""
    if isinstance(layer, nn.Sequential):
        conv, bn = layer
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        return fold_batch_norm(conv, bn)
    assert isinstance(layer, nn.Conv2d)
    return layer


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
