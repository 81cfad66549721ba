"""Box geometry in float32, whatever precision the network computes in.

torchvision's anchors and decoded boxes have the type of the heads' outputs. In bfloat16 coordinates above 256 come in
steps of two pixels, which costs average precision; so heads hand out float32, and anchors are made in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList


class Float32Outputs(nn.Module):
    """A head whose outputs are float32 or wider, in whatever structure it returns them.

    Args:
        head: Takes anything; returns tensors, or lists, tuples or dicts of them.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: Any) -> Any:
        return _widened(self.head(*inputs))


class Float32Anchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors in float32, or in float64 where the maps are."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """As torchvision's, of maps (N, C, H, W), of which only the shapes matter."""
        shapes = [
            map_.new_empty((1, 1, *map_.shape[-2:]), dtype=torch.promote_types(map_.dtype, torch.float32))
            for map_ in feature_maps
        ]
        return super().forward(image_list, shapes)


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(torch.promote_types(value.dtype, torch.float32))
    if isinstance(value, dict):
        return {name: _widened(item) for name, item in value.items()}
    return type(value)(map(_widened, value))
