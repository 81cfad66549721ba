"""VGG, the plain network that GoogLeNet and ResNet are compared with (Simonyan & Zisserman 2014).

Parameter names and arithmetic are those of torchvision: ``load_state_dict`` takes its weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Link
from lit_models.networks.chain import chain_links, numbered_groups, two_part_links
from lit_models.networks.dilation import MAX_POOLS, at_pools, check_stride, dilate, maps_at_pools, strides_at_pools
from lit_models.networks.pooled_head import PooledHead
from lit_models.settings import keeps_arguments

CONVS_PER_STAGE = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Table 1, configurations A, B, D and E."""


class _Features(nn.Module):
    """What both have in common: convolutions and max-pools in ``features``."""

    features: nn.Sequential

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C, H/32, W/32)."""
        if min(images.shape[-2:]) < 32:
            raise NetworkError(
                f"Images of {images.shape[-2]}×{images.shape[-1]} pixels vanish in a VGG, which halves its maps five"
                " times: give at least 32, or another network."
            )
        return self.features(images)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> what each max-pool gets, and what the last one makes of it."""
        return maps_at_pools(self.features, images)

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of what each max-pool gets, and of what the last one makes of it."""
        return at_pools(self.features, 0, _channels_after)

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Of what each max-pool gets, and of what the last one makes of it."""
        return strides_at_pools(self.features)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """timm's way to number layers: convolutions, with ``coarse`` all between two max-pools as one.

        A batch normalisation is of the layer of its convolution, where timm's VGG has two layers. The classifier, which
        nothing matches, is last.
        """
        layers = ((f"features.{name}", layer) for name, layer in self.features.named_children())
        return numbered_groups(layers, MAX_POOLS if coarse else (nn.Conv2d,))

    def dilate(self, output_stride: int) -> None:
        """See :func:`~lit_models.networks.dilation.dilate`."""
        check_stride(self, output_stride)
        dilate(self, [f"features.{name}" for name, _ in self.features.named_children()], output_stride)


def _channels_after(channels: int, layer: nn.Module) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else channels


@keeps_arguments
class VGG(_Features):
    """VGG-11, 13, 16 or 19 for images of about 224 pixels: (N, in_channels, H, W) to logits (N, num_classes).

    Args:
        depth: Number of layers with weights.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        batch_norm: Normalise after each convolution, which the original does not.
        dropout: Probability after each of the two hidden linear layers.

    Raises:
        NetworkError: For an unknown depth; in ``forward``, for images below 32 pixels.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 1000,
        in_channels: int = 3,
        batch_norm: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.features = _convolutions(depth, in_channels, 64, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self.apply(_initialise)

    def links(self) -> list[Link]:
        """Layers one by one; see :func:`lit_models.surgery.links.links`."""
        return two_part_links(self.features, self.avgpool, self.classifier)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier[-1]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.forward_features(images)).flatten(1))


@keeps_arguments
class CIFARVGG(_Features, PooledHead):
    """The convolutions of VGG for images of about 32 pixels, with a linear classifier: (N, C, H, W) to (N, K).

    Args:
        depth: 11, 13, 16 or 19; two layers fewer are left, as one linear layer takes the place of three.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        width: Channels of the first stage; those after it have twice, four and eight times as many.
        batch_norm: Normalise after each convolution, which the original does not.
        dropout: Probability before the classifier.

    Raises:
        NetworkError: For an unknown depth; in ``forward``, for images below 32 pixels.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        batch_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = _convolutions(depth, in_channels, width, batch_norm)
        self.dropout = nn.Dropout(dropout)
        self.num_features = 8 * width
        self.fc = nn.Linear(self.num_features, num_classes)
        self.apply(_initialise)

    def links(self) -> list[Link]:
        """Convolutions one by one, and the classifier."""
        layers = chain_links([("features", self.features)])
        return [*layers, Link("fc", layers[-1].stage + 1, self.forward_head)]

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _convolutions(depth: int, in_channels: int, width: int, batch_norm: bool) -> nn.Sequential:
    """3×3 convolutions in five stages, a max-pool after each: (N, in_channels, H, W) -> (N, 8·width, H/32, W/32)."""
    if depth not in CONVS_PER_STAGE:
        raise NetworkError(f"A VGG has depth {', '.join(map(str, CONVS_PER_STAGE))}, not {depth}.")
    layers = nn.Sequential()
    for count, multiple in zip(CONVS_PER_STAGE[depth], (1, 2, 4, 8, 8), strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(in_channels, multiple * width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(multiple * width))
            layers.append(nn.ReLU(inplace=True))
            in_channels = multiple * width
        layers.append(nn.MaxPool2d(2))
    return layers


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
