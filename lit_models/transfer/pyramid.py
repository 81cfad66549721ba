"""The feature pyramid of torchvision on the maps of a backbone (Lin et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from lit_models.errors import NetworkError
from lit_models.transfer.trunk import Trunk


class Pyramid(nn.Module):
    """Maps of a backbone -> maps of equal channels by name, finest first, with coarser ones added.

    Args:
        trunk: The backbone.
        channels: Of each map of the pyramid.
        finest_stride: Only maps of this stride or more take part.
        extra: Makes the coarser maps.

    Raises:
        NetworkError: For a backbone without such a map.
    """

    def __init__(self, trunk: Trunk, channels: int, finest_stride: int, extra: ExtraFPNBlock) -> None:
        super().__init__()
        self.first = next((i for i, stride in enumerate(trunk.strides) if stride >= finest_stride), len(trunk.strides))
        taken = trunk.channels[self.first :]
        if not taken:
            raise NetworkError(
                f"the pyramid needs maps of a stride of {finest_stride} or more, and those of this"
                f" {type(trunk.net).__name__} have strides of {', '.join(map(str, trunk.strides))}: take another"
                " backbone, or lower finest_stride"
            )
        self.fpn = FeaturePyramidNetwork(list(taken), channels, extra)
        added = 1 if isinstance(extra, LastLevelMaxPool) else 2
        coarsest = trunk.strides[-1]
        self.strides = (*trunk.strides[self.first :], *(coarsest << i for i in range(1, added + 1)))
        """Of each map of the pyramid, in pixels of the image."""
        self.names = [str(i) for i in range(len(taken))] + (["pool"] if added == 1 else ["p6", "p7"])

    def forward(self, maps: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return self.fpn({str(i): map_ for i, map_ in enumerate(maps[self.first :])})
