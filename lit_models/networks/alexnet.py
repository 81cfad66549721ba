"""AlexNet with the two techniques of VanillaNet (ablation of techniques), for images of about 32 pixels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Link
from lit_models.networks.annealed import (
    AnnealedNetwork,
    Block,
    deep_conv,
    merge_layers,
    series_or_relu,
)
from lit_models.networks.pooled_head import PooledHead
from lit_models.settings import keeps_arguments

# Of the five convolutions (Krizhevsky 2014, the form in one tower): output channels in multiples of the first, kernel
# width, and stride of the max-pool after it. The first kernel and stride are those of small images.
MULTIPLES, KERNELS, POOLS = (1, 3, 6, 4, 4), (5, 5, 3, 3, 3), (2, 2, 1, 1, 2)


@keeps_arguments
class CIFARAlexNet(AnnealedNetwork, PooledHead):
    """The five convolutions of AlexNet with a linear classifier: (N, in_channels, H, W) to logits (N, num_classes).

    Unlike the original, each is followed by batch normalisation, which folds into it when the network is merged. The
    max-pools precede the activations, as in VanillaNet.

    Args:
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        width: Channels of the first convolution, 64 in the one-tower form; the others have 3, 6, 4 and 4 times as many.
        deep_training: Train a 1×1 convolution after each, joined by φ_λ.
        series_order: n of the series activations; ``None`` leaves ReLU.
        dropout: Probability before the classifier.
        reparameterized: Build the merged form, as which a merged checkpoint is loaded.

    Raises:
        NetworkError: In ``forward``, for images below 8 pixels.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        deep_training: bool = True,
        series_order: int | None = 3,
        dropout: float = 0.0,
        reparameterized: bool = False,
    ) -> None:
        super().__init__()
        if width < 1:
            raise NetworkError(f"width is {width}; give the channels of the first convolution, at least 1")
        widths = [in_channels, *(width * multiple for multiple in MULTIPLES)]
        self.blocks = nn.ModuleList(
            Block(
                deep_conv(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False), deep_training),
                nn.Identity() if stride == 1 else nn.MaxPool2d(stride),
                series_or_relu(c_out, series_order),
                keeps_shape=stride == 1 and c_in == c_out,
            )
            for (c_in, c_out), kernel, stride in zip(pairwise(widths), KERNELS, POOLS, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        self.num_features = widths[-1]
        self.fc = nn.Linear(self.num_features, num_classes)
        self.deep_training = deep_training
        self.register_buffer("activation_lambda", torch.tensor(0.0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if reparameterized:
            self.set_activation_lambda(1.0)
            merge_layers(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_features, H/8, W/8)."""
        if min(images.shape[-2:]) < 8:
            raise NetworkError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels vanish in this network, which halves its maps"
                " three times: give at least 8"
            )
        x = images
        for block in self.blocks:
            x = block(x, self.activation_lambda)
        return x

    def links(self) -> list[Link]:
        """Convolutions one by one, and the classifier."""
        chain, stage = [], 0
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            stage += i > 0 and not block.keeps_shape
            chain.append(block.link(f"blocks.{i}", stage, self.activation_lambda))
        return [*chain, Link("fc", stage + 1, self.forward_head)]
