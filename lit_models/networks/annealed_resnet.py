"""Deep training and series activations in a residual network (VanillaNet, ablation of techniques on ResNet).

The paper says neither where in a block they go nor how the block is merged. Here each 3×3 convolution of a branch is
trained with a 1×1 after it, and series activations take the place of both ReLUs of a block. The stem stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.interfaces import Link, Rescale
from lit_models.networks.annealed import (
    AnnealedNetwork,
    check_lambda,
    deep_conv,
    merge_layers,
    series_or_relu,
)
from lit_models.networks.residual import GatedBlock
from lit_models.networks.resnet import CIFARResNet, Shortcut
from lit_models.settings import keeps_arguments


class AnnealedBlock(GatedBlock):
    """A basic block with both techniques: (N, in_channels, H, W) -> (N, width, H/stride, W/stride).

    It takes the arguments of ``BasicBlock``, so that it can be the ``block`` of a ResNet. λ belongs to the block, as
    p_l does; :class:`AnnealedCIFARResNet` sets that of all blocks and merges them.

    Args:
        deep_training: Train a 1×1 convolution after each 3×3, joined by φ_λ.
        series_order: n of the series activations; ``None`` leaves ReLU.
    """

    activation_lambda: Tensor

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        preactivation: bool = False,
        rescale: Rescale = "eval",
        deep_training: bool = True,
        series_order: int | None = 3,
    ) -> None:
        if preactivation:
            raise NetworkError("AnnealedBlock has its activation after the sum: set `preactivation: false`.")
        super().__init__(downsample, rescale=rescale, transition=stride != 1 or in_channels != width)
        self.conv1 = deep_conv(nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False), deep_training)
        self.act1 = series_or_relu(width, series_order)
        self.conv2 = deep_conv(nn.Conv2d(width, width, 3, padding=1, bias=False), deep_training)
        self.act2 = series_or_relu(width, series_order)
        self.register_buffer("activation_lambda", torch.tensor(0.0))

    def branch(self, x: Tensor) -> Tensor:
        x = self.act1(self.conv1(x, self.activation_lambda))
        return self.conv2(x, self.activation_lambda)

    def branch_parameters(self) -> list[nn.Parameter]:
        """All parameters but those of the shortcut and of the activation after the sum."""
        outside = ("downsample.", "act2.")
        return [p for name, p in self.named_parameters() if not name.startswith(outside)]

    def link(self, name: str, stage: int) -> Link:
        return replace(super().link(name, stage), activation=self.act2)

    def _activate(self, y: Tensor) -> Tensor:
        return self.act2(y)

    def _skip(self, x: Tensor) -> Tensor:
        # Unlike ReLU, a series activation changes what comes out of another one.
        return self.act2(self.shortcut(x))


@keeps_arguments
class AnnealedCIFARResNet(AnnealedNetwork, CIFARResNet):
    """``CIFARResNet`` with deep training and series activations in its blocks, each of which can be left out.

    Without either it computes what ``CIFARResNet`` does.

    Args:
        depth: 6n + 2, as 20, 32, 44, 56, 110, 1202; layers once merged.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        width: Channels of the first stage; the second and third have two and four times as many.
        shortcut: A, B or C, see ``lit_models.networks.resnet.Shortcut``.
        deep_training: Train a 1×1 convolution after each 3×3 of a block, joined by φ_λ.
        series_order: n of the series activations; ``None`` leaves ReLU.
        reparameterized: Build the merged form, as which a merged checkpoint is loaded.

    Raises:
        NetworkError: If the depth is not 6n + 2, or for arguments that exclude each other.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        shortcut: Shortcut = "A",
        deep_training: bool = True,
        series_order: int | None = 3,
        reparameterized: bool = False,
    ) -> None:
        super().__init__(
            depth,
            num_classes,
            in_channels,
            width,
            shortcut,
            block=AnnealedBlock,
            block_arguments={"deep_training": deep_training, "series_order": series_order},
        )
        self.deep_training = deep_training
        if reparameterized:
            self.set_activation_lambda(1.0)
            merge_layers(self)

    @property
    def activation_lambda(self) -> Tensor:  # type: ignore[override]
        """λ, of which every block has a copy."""
        return self._annealed_blocks()[0].activation_lambda

    def set_activation_lambda(self, value: float) -> None:
        check_lambda(value)
        for block in self._annealed_blocks():
            block.activation_lambda.fill_(value)

    def _annealed_blocks(self) -> list[AnnealedBlock]:
        return [block for block in self.residual_blocks().values() if isinstance(block, AnnealedBlock)]
