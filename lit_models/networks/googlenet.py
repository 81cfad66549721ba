"""GoogLeNet for ImageNet and for small images (Szegedy et al. 2014).

Parameter names and, in the variant ``torchvision``, arithmetic are those of torchvision: ``load_state_dict`` takes its
weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lit_models.errors import NetworkError, check_choice
from lit_models.interfaces import Link, LogitsWithAux, identity
from lit_models.networks.chain import numbered_groups
from lit_models.networks.dilation import MAX_POOLS, at_pools, check_stride, dilate, maps_at_pools, strides_at_pools
from lit_models.networks.inception import ConvReLU, InceptionModule, Widths
from lit_models.networks.pooled_head import PooledHead
from lit_models.networks.relu import relu
from lit_models.settings import keeps_arguments

GoogLeNetVariant = Literal["original", "torchvision"]
"""original: the network of table 1. torchvision: a 3×3 in place of each 5×5, 2×2 in place of 3×3 windows in the last
max-pool, and auxiliary heads that pool adaptively."""

MODULES = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
"""Table 1."""


class AuxiliaryHead(nn.Module):
    """A classifier in the middle of the network (section 5): (N, in_channels, H, W) -> (N, num_classes).

    4×4 means → 1×1 convolution → linear → ReLU → dropout of 0.7 → linear.

    Args:
        in_channels: Channels of the maps.
        num_classes: K, the number of logits.
        width: Output channels of the convolution; the first linear layer has eight times as many.
        batch_norm: Normalise after the convolution.
        adaptive: Average over 4×4 parts of the map. The paper's windows are 5×5 at a stride of 3, 4×4 of them on maps
            of 14 to 16 pixels; maps of other sizes are parted either way.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: int = 128, batch_norm: bool = True, adaptive: bool = False
    ) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.conv = ConvReLU(in_channels, width, 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(16 * width, 8 * width)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.adaptive or not all(14 <= side <= 16 for side in x.shape[-2:]):
            x = F.adaptive_avg_pool2d(x, 4)
        else:
            x = F.avg_pool2d(x, 5, stride=3)
        x = relu(self.fc1(self.conv(x).flatten(1)))
        return self.fc2(self.dropout(x))


class _Inceptions(PooledHead):
    """Layers one after the other, auxiliary heads on two of them, mean over the pixels, linear classifier ``fc``."""

    def __init__(
        self,
        layers: dict[str, nn.Module],
        heads: dict[str, AuxiliaryHead],
        num_features: int,
        num_classes: int,
        dropout: float,
        reparameterized: bool,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.layers = list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.heads = {name: f"aux{i + 1}" for i, name in enumerate(heads)}
        for name, head in zip(self.heads.values(), heads.values(), strict=True):
            self.add_module(name, head)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(num_features, num_classes)

        for module in self.modules():
            # The paper names no initialisation. This one keeps the variance of what goes forward.
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if reparameterized:
            self.reparameterize()

    def forward(self, images: Tensor) -> Tensor | LogitsWithAux:
        """(N, in_channels, H, W) -> logits (N, num_classes), in training with those of the auxiliary heads."""
        x, aux_logits = self._forward_layers(images)
        logits = self.forward_head(x)
        return LogitsWithAux(logits, tuple(aux_logits)) if aux_logits else logits

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_features, H', W')."""
        return self._forward_layers(images)[0]

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> what each max-pool gets, and the last map."""
        return maps_at_pools(self._chain(), images)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of what each max-pool gets, and of the last map."""
        return at_pools(self._chain(), 0, _channels_after)

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Of what each max-pool gets, and of the last map."""
        return strides_at_pools(self._chain())

    def _chain(self) -> Iterator[nn.Module]:
        return (self.get_submodule(name) for name in self.layers)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's way to number layers: convolutions and modules, with ``coarse`` all between two max-pools as one.

        The classifiers, which nothing matches, are last.
        """
        layers = zip(self.layers, self._chain(), strict=True)
        return numbered_groups(layers, MAX_POOLS if coarse else (ConvReLU, InceptionModule))

    def dilate(self, output_stride: int) -> None:
        """See :func:`~lit_models.networks.dilation.dilate`."""
        check_stride(self, output_stride)
        dilate(self, self.layers, output_stride)

    def _forward_layers(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        aux_logits = []
        for name in self.layers:
            x = getattr(self, name)(x)
            if self.training and name in self.heads:
                aux_logits.append(getattr(self, self.heads[name])(x))
        return x, aux_logits

    def links(self) -> list[Link]:
        """The layers one by one; a module that keeps the shape can be deleted."""
        chain: list[Link] = []
        stage = 0
        for name in self.layers:
            layer = getattr(self, name)
            keeps_shape = isinstance(layer, InceptionModule) and layer.in_channels == layer.out_channels
            stage += isinstance(layer, nn.MaxPool2d)
            shortcut = identity if keeps_shape else None
            chain.append(Link(name, stage, layer, shortcut, transition=bool(chain) and not keeps_shape))
        return [*chain, Link("fc", stage + 1, self.forward_head)]

    def reparameterize(self) -> None:
        """Fold every batch normalisation into its convolution, and drop the auxiliary heads."""
        for name in self.heads.values():
            delattr(self, name)
        self.heads = {}
        for module in self.modules():
            if isinstance(module, ConvReLU):
                module.reparameterize()


def _channels_after(channels: int, layer: nn.Module) -> int:
    if isinstance(layer, InceptionModule):
        return layer.out_channels
    return layer.conv.out_channels if isinstance(layer, ConvReLU) else channels


@keeps_arguments
class GoogLeNet(_Inceptions):
    """GoogLeNet for images of about 224 pixels (table 1, figure 3).

    In training mode it returns :class:`~lit_models.interfaces.LogitsWithAux`, with the logits of the auxiliary heads on
    4a and 4d. In evaluation mode the heads take no part, and a merged network has none.

    torchvision's weights load into the ``torchvision`` variant. Its published ones were trained on images normalised
    with a mean and a standard deviation of 0.5.

    Args:
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        variant: See ``GoogLeNetVariant``.
        bottleneck: Modules with 1×1 reductions, or naive ones.
        batch_norm: Normalise after each convolution. The original has biases and local response normalisation instead.
        aux_heads: Build the auxiliary heads.
        dropout: Probability before the classifier.
        reparameterized: Build the merged form, as which a merged checkpoint is loaded.

    Raises:
        NetworkError: For an unknown variant.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        variant: GoogLeNetVariant = "original",
        bottleneck: bool = True,
        batch_norm: bool = True,
        aux_heads: bool = True,
        dropout: float = 0.4,
        reparameterized: bool = False,
    ) -> None:
        check_choice("variant", variant, GoogLeNetVariant)
        original = variant == "original"
        # Krizhevsky et al. 2012, section 3.3, with the parameters of Caffe's GoogLeNet.
        normalise = nn.Identity if batch_norm else lambda: nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        layers: dict[str, nn.Module] = {
            "conv1": ConvReLU(in_channels, 64, 7, stride=2, batch_norm=batch_norm),
            "maxpool1": _max_pool(),
            "norm1": normalise(),
            "conv2": ConvReLU(64, 64, 1, batch_norm=batch_norm),
            "conv3": ConvReLU(64, 192, 3, batch_norm=batch_norm),
            "norm2": normalise(),
            "maxpool2": _max_pool(),
        }
        channels, channels_after = 192, {}
        for name, widths in MODULES.items():
            if name == "4a":
                layers["maxpool3"] = _max_pool()
            if name == "5a":
                layers["maxpool4"] = _max_pool(3 if original else 2)
            module = InceptionModule(channels, widths, bottleneck, batch_norm, large_kernel=5 if original else 3)
            layers[f"inception{name}"] = module
            channels = channels_after[f"inception{name}"] = module.out_channels
        heads = {
            name: AuxiliaryHead(channels_after[name], num_classes, batch_norm=batch_norm, adaptive=not original)
            for name in (("inception4a", "inception4d") if aux_heads else ())
        }
        super().__init__(layers, heads, channels, num_classes, dropout, reparameterized)


@keeps_arguments
class CIFARGoogLeNet(_Inceptions):
    """GoogLeNet for images of about 32 pixels: a 3×3 stem, and modules on maps of 16, 8 and 4 pixels.

    All modules of a stage are alike, in the proportions of 3a in table 1: c filters of 1×1, 3/2·c → 2c of 3×3,
    c/4 → c/2 of 5×5, c/2 after the pool, 4c in all. ``modules_per_stage=(2, 5, 2)`` are those of GoogLeNet; the
    auxiliary heads are then on its 4a and 4d, that is after the first and the last but one module of the middle stage.

    Args:
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        width: c of the first stage, a multiple of 4; the second and third have two and four times as many.
        modules_per_stage: Their number, from the first stage to the third.
        bottleneck: Modules with 1×1 reductions, or naive ones.
        batch_norm: Normalise after each convolution, which otherwise has a bias.
        aux_heads: Build the auxiliary heads.
        dropout: Probability before the classifier.
        reparameterized: Build the merged form, as which a merged checkpoint is loaded.

    Raises:
        NetworkError: For a width that is no multiple of 4, or a middle stage too short for the heads.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        modules_per_stage: tuple[int, int, int] = (2, 5, 2),
        bottleneck: bool = True,
        batch_norm: bool = True,
        aux_heads: bool = True,
        dropout: float = 0.0,
        reparameterized: bool = False,
    ) -> None:
        if width < 4 or width % 4:
            raise NetworkError(f"The width of a CIFARGoogLeNet is a multiple of 4, not {width}.")
        if min(modules_per_stage) < 1 or (aux_heads and modules_per_stage[1] < 3):
            raise NetworkError(
                f"modules_per_stage={list(modules_per_stage)}: each stage needs a module, and the middle one three for"
                " heads after its first and its last but one: give more modules or set `aux_heads: false`."
            )
        layers: dict[str, nn.Module] = {"conv1": ConvReLU(in_channels, 3 * width, 3, batch_norm=batch_norm)}
        channels, channels_after = 3 * width, {}
        for stage, count in enumerate(modules_per_stage):
            layers[f"maxpool{stage + 2}"] = _max_pool()
            for letter in range(count):
                module = InceptionModule(channels, _proportions_of_3a(width << stage), bottleneck, batch_norm)
                name = f"inception{stage + 3}{chr(ord('a') + letter)}"
                layers[name] = module
                channels = channels_after[name] = module.out_channels
        middle = [name for name in layers if name.startswith("inception4")]
        heads = {
            name: AuxiliaryHead(channels_after[name], num_classes, 2 * width, batch_norm)
            for name in ((middle[0], middle[-2]) if aux_heads else ())
        }
        super().__init__(layers, heads, channels, num_classes, dropout, reparameterized)


def _proportions_of_3a(c: int) -> Widths:
    return Widths(c, 3 * c // 2, 2 * c, c // 4, c // 2, c // 2)


def _max_pool(kernel_size: int = 3) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)
