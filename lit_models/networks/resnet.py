"""Residual networks for ImageNet and CIFAR (He et al. 2015 and 2016; variants B, C and D of He et al. 2019).

Parameter names and arithmetic are those of torchvision and timm: ``load_state_dict`` takes their weights.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lit_models.errors import NetworkError, check_choice
from lit_models.interfaces import Link, Rescale
from lit_models.networks.chain import chain_links
from lit_models.networks.dilation import check_stride, dilate, stride_of
from lit_models.networks.pooled_head import PooledHead
from lit_models.networks.relu import relu
from lit_models.networks.residual import GatedBlock, gated_blocks
from lit_models.settings import keeps_arguments

Shortcut = Literal["A", "B", "C", "none"]
"""He et al. 2015, section 4.1. A: zero channels are appended. B: a projection where the shape changes.
C: a projection everywhere. none: the plain network."""

Downsample = Literal["stride", "average_pool"]
"""How a shortcut halves the image: every second pixel (He et al. 2015) or 2×2 means (Huang et al. 2016)."""

Variant = Literal["original", "B", "C", "D"]
"""He et al. 2019, section 4. original: the first 1×1 of a bottleneck strides. B: its 3×3 does. C: B with
three 3×3 in place of the 7×7 of the stem. D: C with shortcuts that average before they project."""

Init = Literal["fan_out", "torch7"]
"""fan_out: convolutions by their fan-out (He et al. 2015, section 2.2) and γ = 1, as in torchvision.
torch7: convolutions by their fan-in and γ uniform in [0, 1), as Huang et al. 2016 began."""


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _mean_pool(stride: int) -> nn.AvgPool2d:
    """At an odd border the mean is over the pixels that are there, as timm has it."""
    return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)


class BasicBlock(GatedBlock):
    """Two 3×3 convolutions: (N, in_channels, H, W) -> (N, width, H/stride, W/stride)."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        preactivation: bool = False,
        rescale: Rescale = "eval",
    ) -> None:
        super().__init__(downsample, preactivation, rescale, transition=stride != 1 or in_channels != width)
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(in_channels if preactivation else width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The last BN of the branch."""
        return self.bn2

    def branch(self, x: Tensor) -> Tensor:
        if self.preactivation:
            x = self.conv1(relu(self.bn1(x)))
            return self.conv2(relu(self.bn2(x)))
        x = relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(GatedBlock):
    """1×1, 3×3 and 1×1 convolutions: (N, in_channels, H, W) -> (N, 4·width, H/stride, W/stride).

    The 3×3 strides, or with ``stride_first`` the first 1×1 as in the original network.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        preactivation: bool = False,
        rescale: Rescale = "eval",
        stride_first: bool = False,
    ) -> None:
        out_channels = width * self.expansion
        super().__init__(downsample, preactivation, rescale, transition=stride != 1 or in_channels != out_channels)
        self.conv1 = _conv(in_channels, width, 1, stride if stride_first else 1)
        self.bn1 = nn.BatchNorm2d(in_channels if preactivation else width)
        self.conv2 = _conv(width, width, 3, 1 if stride_first else stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(width if preactivation else out_channels)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The last BN of the branch."""
        return self.bn3

    def branch(self, x: Tensor) -> Tensor:
        if self.preactivation:
            x = self.conv1(relu(self.bn1(x)))
            x = self.conv2(relu(self.bn2(x)))
            return self.conv3(relu(self.bn3(x)))
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


def _plain_block(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """A basic block without the sum, under the same parameter names."""
    return nn.Sequential(
        OrderedDict(
            conv1=_conv(in_channels, width, 3, stride),
            bn1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(inplace=True),
            conv2=_conv(width, width, 3),
            bn2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(inplace=True),
        )
    )


class _ZeroPaddedShortcut(nn.Module):
    """Option A: (N, C, H, W) -> (N, C + extra_channels, H/stride, W/stride) without parameters."""

    def __init__(self, extra_channels: int, stride: int, downsample: Downsample) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        # A pool over single pixels subsamples like a slice, but its backward pass keeps channels_last.
        self.pool = _mean_pool(stride) if downsample == "average_pool" else nn.AvgPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.pool(x), (0, 0, 0, 0, 0, self.extra_channels))


def _shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    kind: Shortcut,
    downsample: Downsample,
    preactivation: bool,
) -> nn.Module | None:
    """The module of a shortcut, ``None`` where it is the identity."""
    if stride == 1 and in_channels == out_channels and kind != "C":
        return None
    if kind == "A":
        return _ZeroPaddedShortcut(out_channels - in_channels, stride, downsample)
    if downsample == "average_pool":
        # timm keeps the first of the three places where there is nothing to average.
        pool = nn.Identity() if stride == 1 else _mean_pool(stride)
        layers: list[nn.Module] = [pool, _conv(in_channels, out_channels, 1)]
    else:
        layers = [_conv(in_channels, out_channels, 1, stride)]
    # He et al. 2016: with pre-activation no normalisation stands on the shortcut path.
    return nn.Sequential(*layers) if preactivation else nn.Sequential(*layers, nn.BatchNorm2d(out_channels))


class _Stages(PooledHead):
    """Stem, stages ``layer1``, ``layer2``, ..., mean over the pixels, linear classifier ``fc``.

    From the second stage on, the first block of a stage strides.
    """

    def __init__(
        self,
        conv1: nn.Module,
        maxpool: nn.Module,
        stem_width: int,
        block: type[Any],
        widths: list[int],
        blocks_per_stage: list[int],
        num_classes: int,
        shortcut: Shortcut,
        downsample: Downsample,
        preactivation: bool,
        zero_gamma: bool,
        init: Init,
        **block_arguments: Any,
    ) -> None:
        super().__init__()
        check_choice("shortcut", shortcut, Shortcut)
        check_choice("downsample", downsample, Downsample)
        check_choice("init", init, Init)
        plain = shortcut == "none"
        if plain and (block is not BasicBlock or preactivation or zero_gamma):
            raise NetworkError(
                "`shortcut: none` makes a plain network of 3×3 convolutions, which goes with a CIFAR ResNet "
                "or with depth 18 or 34, and without `preactivation`, `zero_gamma` and a `block` of your own."
            )
        if zero_gamma and not hasattr(block, "last_norm"):
            raise NetworkError(
                "`zero_gamma` needs blocks with a property `last_norm`, the last batch normalisation of the branch. "
                f"{block.__name__} has none: add it, or set `zero_gamma: false`."
            )
        if preactivation and zero_gamma:
            raise NetworkError(
                "`zero_gamma` needs branches that end in batch normalisation, and those of a `preactivation` "
                "network end in a convolution: set one of the two to false."
            )
        self.preactivation = preactivation
        self.num_features = widths[-1] * block.expansion
        self.conv1 = conv1
        self.bn1 = nn.BatchNorm2d(self.num_features if preactivation else stem_width)
        self.maxpool = maxpool
        self.stages = [f"layer{i + 1}" for i in range(len(widths))]
        self.feature_channels = tuple(width * block.expansion for width in widths)
        channels = stem_width
        for name, width, count in zip(self.stages, widths, blocks_per_stage, strict=True):
            stage = nn.Sequential()
            for i in range(count):
                stride = 2 if i == 0 and name != "layer1" else 1
                out_channels = width * block.expansion
                if plain:
                    stage.append(_plain_block(channels, width, stride))
                else:
                    side = _shortcut(channels, out_channels, stride, shortcut, downsample, preactivation)
                    stage.append(block(channels, width, stride, side, preactivation, **block_arguments))
                channels = out_channels
            self.add_module(name, stage)
        self.fc = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                mode: Literal["fan_in", "fan_out"] = "fan_in" if init == "torch7" else "fan_out"
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d) and init == "torch7":
                nn.init.uniform_(module.weight)
        if zero_gamma:
            for residual_block in self.residual_blocks().values():
                nn.init.zeros_(residual_block.last_norm.weight)  # type: ignore[union-attr,arg-type]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's way to number layers: the stem 0, each block or with ``coarse`` each stage, and the head last.

        The head is what nothing matches; with pre-activation the last batch normalisation, ``bn1``, is of it.
        """
        stem = r"conv1\." if self.preactivation else r"(?:conv1|bn1)\."
        return {"stem": stem, "blocks": r"layer(\d+)\." if coarse else r"layer(\d+)\.(\d+)\."}

    def residual_blocks(self) -> dict[str, GatedBlock]:
        """The blocks by module name, in forward order; none in a plain network."""
        return gated_blocks(self)

    def links(self) -> list[Link]:
        """Stem, residual blocks (of a plain network: layers) and head."""
        chain = [Link("conv1", 0, self._stem)]
        for number, stage in enumerate(self.stages, start=1):
            chain += chain_links([(stage, self.get_submodule(stage))], number)
        return [*chain, Link("fc", len(self.stages) + 1, lambda x: self.forward_head(self._last_activation(x)))]

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Of the maps after each stage."""
        stride = stride_of(self.conv1) * stride_of(self.maxpool)
        return tuple(stride := stride * stride_of(self.get_submodule(stage)) for stage in self.stages)

    def dilate(self, output_stride: int) -> None:
        """See :func:`~lit_models.networks.dilation.dilate`."""
        check_stride(self, output_stride)
        blocks = [f"{stage}.{name}" for stage in self.stages for name, _ in self.get_submodule(stage).named_children()]
        dilate(self, ["conv1", "maxpool", *blocks], output_stride)

    def _stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if not self.preactivation:
            x = relu(self.bn1(x))
        return self.maxpool(x)

    def _last_activation(self, x: Tensor) -> Tensor:
        # With pre-activation the blocks start with the activation, so the last one is left for the end.
        return relu(self.bn1(x)) if self.preactivation else x

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> the maps after each stage, the last one as the classifier gets it."""
        x, maps = self._stem(images), []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            maps.append(x)
        return (*maps[:-1], self._last_activation(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_features, H', W')."""
        x = self._stem(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self._last_activation(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


@keeps_arguments
class ResNet(_Stages):
    """ResNet for images of about 224 pixels (He et al. 2015, table 1).

    Weights of torchvision's networks load into variant B, of timm's ``resnet*d`` into variant D.

    Args:
        depth: 18 and 34 have basic blocks, 50, 101 and 152 bottlenecks.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        variant: Where the network strides, see ``Variant``.
        shortcut: Shape of the shortcuts, see ``Shortcut``.
        preactivation: BN and ReLU before each convolution, none after the sum (He et al. 2016).
        zero_gamma: The last BN of each branch starts with γ = 0 (He et al. 2019, section 3.1).
        rescale: Where a randomly dropped branch is corrected, see ``lit_models.interfaces.Rescale``.
        block: Class of the residual blocks instead of ``BasicBlock`` or ``Bottleneck``, in YAML its import path. It
            takes the arguments of ``BasicBlock``.
        block_arguments: Further arguments of ``block``.

    Raises:
        NetworkError: For an unknown depth or name, or arguments that exclude each other.
    """

    def __init__(
        self,
        depth: int = 50,
        num_classes: int = 1000,
        in_channels: int = 3,
        variant: Variant = "B",
        shortcut: Shortcut = "B",
        preactivation: bool = False,
        zero_gamma: bool = False,
        rescale: Rescale = "eval",
        block: type[GatedBlock] | None = None,
        block_arguments: dict[str, Any] | None = None,
    ) -> None:
        if depth not in _IMAGENET_BLOCKS:
            raise NetworkError(f"A ResNet has depth {', '.join(map(str, _IMAGENET_BLOCKS))}, not {depth}.")
        check_choice("variant", variant, Variant)
        block = block or (Bottleneck if depth >= 50 else BasicBlock)
        super().__init__(
            conv1=_deep_stem(in_channels) if variant in ("C", "D") else _conv(in_channels, 64, 7, stride=2),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
            stem_width=64,
            block=block,
            widths=[64, 128, 256, 512],
            blocks_per_stage=_IMAGENET_BLOCKS[depth],
            num_classes=num_classes,
            shortcut=shortcut,
            downsample="average_pool" if variant == "D" else "stride",
            preactivation=preactivation,
            zero_gamma=zero_gamma,
            init="fan_out",
            rescale=rescale,
            **({"stride_first": variant == "original"} if issubclass(block, Bottleneck) else {}),
            **(block_arguments or {}),
        )


_IMAGENET_BLOCKS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}


def _deep_stem(in_channels: int) -> nn.Sequential:
    """He et al. 2019, section 4.2: (N, in_channels, H, W) -> (N, 64, H/2, W/2)."""
    return nn.Sequential(
        _conv(in_channels, 32, 3, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _conv(32, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        _conv(32, 64, 3),
    )


@keeps_arguments
class CIFARResNet(_Stages):
    """ResNet for images of about 32 pixels (He et al. 2015, section 4.2): three stages of n basic blocks.

    Args:
        depth: 6n + 2, as 20, 32, 44, 56, 110, 1202.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        width: Channels of the first stage; the second and third have two and four times as many.
        shortcut: Shape of the shortcuts, see ``Shortcut``.
        downsample: How shortcuts halve height and width, see ``Downsample``.
        preactivation: BN and ReLU before each convolution, none after the sum (He et al. 2016).
        zero_gamma: The last BN of each branch starts with γ = 0 (He et al. 2019, section 3.1).
        rescale: Where a randomly dropped branch is corrected, see ``lit_models.interfaces.Rescale``.
        block: Class of the residual blocks instead of ``BasicBlock``, in YAML its import path. It takes the arguments
            of ``BasicBlock``.
        block_arguments: Further arguments of ``block``.
        init: How the weights begin, see ``Init``.

    Raises:
        NetworkError: If the depth is not 6n + 2, for an unknown name, or for arguments that exclude each other.
    """

    def __init__(
        self,
        depth: int = 110,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        shortcut: Shortcut = "A",
        downsample: Downsample = "stride",
        preactivation: bool = False,
        zero_gamma: bool = False,
        rescale: Rescale = "eval",
        block: type[GatedBlock] | None = None,
        block_arguments: dict[str, Any] | None = None,
        init: Init = "fan_out",
    ) -> None:
        n, remainder = divmod(depth - 2, 6)
        if n < 1 or remainder:
            n = max(n, 1)
            raise NetworkError(f"The depth of a CIFAR ResNet is 6n + 2, not {depth}: try {6 * n + 2} or {6 * n + 8}.")
        if width < 1:
            raise NetworkError(f"width is {width}; give the channels of the first stage, at least 1.")
        super().__init__(
            conv1=_conv(in_channels, width, 3),
            maxpool=nn.Identity(),
            stem_width=width,
            block=block or BasicBlock,
            widths=[width, 2 * width, 4 * width],
            blocks_per_stage=[n, n, n],
            num_classes=num_classes,
            shortcut=shortcut,
            downsample=downsample,
            preactivation=preactivation,
            zero_gamma=zero_gamma,
            init=init,
            rescale=rescale,
            **(block_arguments or {}),
        )
