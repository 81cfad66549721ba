"""Fully convolutional networks for segmentation (Long et al. 2015) on any backbone, with torchvision's head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from lit_models.errors import NetworkError
from lit_models.freezing import Norm
from lit_models.interfaces import LogitsWithAux
from lit_models.settings import keeps_arguments
from lit_models.transfer.trunk import OnTrunk, Trunk


@keeps_arguments
class FCN(OnTrunk):
    """A class for each pixel: (N, C, H, W) images to (N, K, H, W) logits.

    A dilated backbone, a head of two convolutions on its last map, and in training another on the map before, whose
    logits come second in :class:`~lit_models.interfaces.LogitsWithAux` (Bag of Tricks, section 6.2).

    Args:
        backbone: A network; see :class:`~lit_models.interfaces.Backbone`.
        num_classes: K.
        output_stride: The backbone is dilated so that its last map has this stride, in pixels of the image; null leaves
            it as it is.
        aux_head: Build the auxiliary head.
        frozen_stages: See :class:`~lit_models.transfer.trunk.Trunk`.
        norm: Of the backbone, see ``Norm``.

    Raises:
        NetworkError: For a backbone that has no map of this stride, or none for the auxiliary head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        output_stride: int | None = 8,
        aux_head: bool = True,
        frozen_stages: int = 0,
        norm: Norm = "train",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Trunk(backbone, frozen_stages, norm)
        if output_stride is not None:
            backbone.dilate(output_stride)  # type: ignore[operator]
        channels = self.backbone.channels
        if aux_head and len(channels) < 2:
            raise NetworkError(
                f"{type(backbone).__name__} has one map, and the auxiliary head stands on the one before the last: set"
                " net.aux_head to false"
            )
        self.classifier = FCNHead(channels[-1], num_classes)
        self.aux_classifier = FCNHead(channels[-2], num_classes) if aux_head else None

    def forward(self, images: Tensor) -> Tensor | LogitsWithAux:
        """(N, C, H, W) -> (N, K, H, W), in training with those of the auxiliary head."""
        maps = self.backbone(images)
        logits = _enlarged(self.classifier(maps[-1]), images)
        if self.training and self.aux_classifier is not None:
            return LogitsWithAux(logits, (_enlarged(self.aux_classifier(maps[-2]), images),))
        return logits

    def head_parameters(self) -> list[nn.Parameter]:
        """Of the heads, which learn faster than the backbone."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("backbone.")]


def _enlarged(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
