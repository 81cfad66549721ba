"""VanillaNet: train deep, run shallow (Chen, Wang, Guo, Tao, NeurIPS 2023).

Two convolutions joined by an activation that is annealed to the identity are one convolution at the end of training.
A series of shifted activations gives the shallow network that remains its non-linearity.

The network has one form in training and another after :meth:`VanillaNet.reparameterize`::

    stem    conv k×k → BN → φ_λ → conv 1×1 → BN              → series      conv k×k          → series
    block   conv 1×1 → BN → φ_λ → conv 1×1 → BN → max-pool → series      conv 1×1 → max-pool → series
    head    mean → dropout → conv 1×1 → BN → φ_λ → conv 1×1                 mean → dropout → conv 1×1

Without deep training it has a single convolution, with batch normalisation, in the place of each pair.
"""

from __future__ import annotations

import math
from itertools import accumulate, compress, pairwise
from operator import mul

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lit_models.errors import NetworkError, check_choice
from lit_models.interfaces import Link
from lit_models.networks.annealed import (
    AnnealedConvs,
    AnnealedNetwork,
    Block,
    SeriesActivation,
    Shortcut,
    merge_layers,
    with_bn,
    without_cpu_autocast,
)
from lit_models.networks.dilation import DenseMaxPool, check_stride, dilate, stride_of
from lit_models.settings import keeps_arguments

# Output width of each block in multiples of the stem's, and the stride of its max-pool (layer table of the paper).
LAYERS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    5: ((2, 4, 8), (2, 2, 2)),
    6: ((2, 4, 8, 8), (2, 2, 2, 1)),
    **{depth: ((1, 2, *(4,) * (depth - 6), 8, 8), (1, 2, 2, *(1,) * (depth - 7), 2, 1)) for depth in range(7, 14)},
}
# Side of the maps after each of the three max-pools of the ada-pool variant, whatever the size of the images.
ADAPTIVE_SIDES = (38, 19, 10)


@keeps_arguments
class VanillaNet(AnnealedNetwork):
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
        deep_training: Train a pair of convolutions joined by φ_λ for each layer; ``False`` trains the single
            convolution (section 4.1, ablation of techniques), and λ has no effect.

    Raises:
        NetworkError: For a depth, width, order, activation or shortcut that does not exist; in ``forward``, for images
            that the strides leave nothing of.
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
        deep_training: bool = True,
    ) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise NetworkError(f"VanillaNet has a depth of {min(LAYERS)} to {max(LAYERS)}, not {depth}")
        if width < 1:
            raise NetworkError(f"width is {width}; give the channels of the stem, at least 1")
        if not callable(getattr(F, activation, None)):
            raise NetworkError(f"activation {activation!r} is not a function of torch.nn.functional")
        check_choice("shortcut", shortcut, Shortcut)
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
            AnnealedConvs(with_bn(stem), with_bn(nn.Conv2d(width, width, 1)) if deep_training else None),
            nn.Identity(),
            SeriesActivation(width, series_order, activation),
        )
        self.blocks = nn.ModuleList(
            Block(
                _pointwise(c_in, c_out, deep_training),
                pool,
                SeriesActivation(c_out, series_order, activation),
                shortcut,
                keeps_shape=stride == 1 and c_in == c_out,
                extra_channels=c_out - c_in,
            )
            for (c_in, c_out), stride, pool in zip(pairwise(widths), strides, pools, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.num_features = widths[-1]
        self.deep_training = deep_training
        self.head = _head(self.num_features, num_classes, deep_training)
        self.strides = strides
        self._ends_resolution = [*(stride > 1 for stride in strides), True]
        """Of the stem and each block, whether the next one pools or none follows."""
        self.smallest_image = stem_stride * (1 if adaptive_pool else math.prod(strides))
        self.register_buffer("activation_lambda", torch.tensor(0.0))
        self.apply(_initialise)
        if reparameterized:
            self.set_activation_lambda(1.0)
            merge_layers(self)

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
        """Of the last map of each resolution. Raises ``NetworkError`` for adaptive pools, whose maps have one size."""
        if any(isinstance(block.pool, nn.AdaptiveMaxPool2d) for block in self.blocks):
            raise NetworkError(
                "the maps of a VanillaNet with adaptive_pool have one size, whatever that of the images:"
                " as a backbone build it without"
            )
        return self._strides_of_maps()

    def _strides_of_maps(self) -> tuple[int, ...]:
        strides = accumulate(map(self._stride, range(len(self.blocks))), mul, initial=stride_of(self.stem))
        return tuple(compress(strides, self._ends_resolution))

    def _stride(self, block: int) -> int:
        dilated = isinstance(self.blocks[block].pool, DenseMaxPool)
        return 1 if dilated else self.strides[block]

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the last map of each resolution."""
        parts = [self.stem, *self.blocks]
        channels = [part.activation.conv.out_channels for part in parts]
        return tuple(compress(channels, self._ends_resolution))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> the last map of each resolution.

        Of VanillaNet-13 these are the maps after blocks 0, 1, 8 and 10, as in the authors' detectors.
        """
        x = self._stem(images)
        outputs = [x, *(x := block(x, self.activation_lambda) for block in self.blocks)]
        return tuple(compress(outputs, self._ends_resolution))

    def dilate(self, output_stride: int) -> None:
        """See :func:`~lit_models.networks.dilation.dilate`."""
        check_stride(self, output_stride)
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
        _require_size(images, self.smallest_image)
        return self.stem(images, self.activation_lambda)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> logits (N, K), or with ``pre_logits`` what the classifier gets."""
        pooled = self.dropout(features.mean((2, 3), keepdim=True))
        if pre_logits:
            return pooled.flatten(1)
        # In bfloat16 oneDNN writes beyond its memory for more than 2,048 channels and fewer than 16 classes.
        return without_cpu_autocast(self.head, pooled, self.activation_lambda).flatten(1)

    def get_classifier(self) -> nn.Module:
        """The head: two convolutions, or one once merged."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a new one of ``num_classes`` classes, in the form of the network; 0 removes it."""
        merged = isinstance(self.stem.convs.first, nn.Conv2d)
        self.head = _head(self.num_features, num_classes, self.deep_training and not merged)
        self.head.apply(_initialise)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's way to number layers: the stem 0, block i → i + 1, the head, which nothing matches, last.

        With ``coarse`` two blocks are one group, i → ⌊i / 2⌋ + 1, as in the authors' detectors.
        """
        if not coarse:
            return {"stem": r"stem", "blocks": r"blocks\.(\d+)"}
        pairs = range(0, len(self.blocks), 2)
        return {"stem": r"stem", **{f"blocks.{i}": rf"blocks\.(?:{i}|{i + 1})\." for i in pairs}}


@fx.wrap
def _require_size(images: Tensor, smallest: int) -> None:
    """Raise where nothing would be left of the images; a traced network has the call in its graph."""
    if min(images.shape[-2:]) < smallest:
        raise NetworkError(
            f"images of {images.shape[-2]}×{images.shape[-1]} pixels vanish in this network, which halves its maps"
            f" until {smallest} pixels are one: lower stem_stride"
        )


def _pointwise(in_channels: int, out_channels: int, deep_training: bool) -> AnnealedConvs:
    if not deep_training:
        return AnnealedConvs(with_bn(nn.Conv2d(in_channels, out_channels, 1)), None)
    first = nn.Conv2d(in_channels, in_channels, 1)
    return AnnealedConvs(with_bn(first), with_bn(nn.Conv2d(in_channels, out_channels, 1)))


def _head(num_features: int, num_classes: int, deep_training: bool) -> AnnealedConvs:
    if num_classes == 0:
        return AnnealedConvs(nn.Identity(), None)
    first = nn.Conv2d(num_features, num_classes, 1)
    if not deep_training:
        return AnnealedConvs(first, None)
    return AnnealedConvs(with_bn(first), nn.Conv2d(num_classes, num_classes, 1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
