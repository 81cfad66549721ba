"""Mask R-CNN (He et al. 2017) on any backbone, of torchvision's parts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from lit_models.errors import NetworkError
from lit_models.settings import keeps_arguments
from lit_models.transfer.faster_rcnn import FasterRCNN
from lit_models.transfer.float32 import Float32Outputs
from lit_models.transfer.targets import Detections, Losses, Targets

_CONVOLUTIONS = 4


@keeps_arguments
class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a feature pyramid, and for each object the pixels that belong to it.

    A third head on the regions returns a mask of 28×28 pixels for each class; it learns from the regions that hold an
    object, and in evaluation is applied to the final boxes. The defaults are those of torchvision.

    Args:
        backbone: A network; see :class:`~lit_models.interfaces.Backbone`.
        num_classes: K, without the background.
        pyramid_channels: Of each map of the pyramid.
        mask_channels: Of the four convolutions of the mask head.
        **options: See :class:`~lit_models.transfer.faster_rcnn.FasterRCNN`.

    Raises:
        NetworkError: For a backbone without the maps that the pyramid needs, and for targets without masks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        pyramid_channels: int = 256,
        mask_channels: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, neck="fpn", pyramid_channels=pyramid_channels, **options)
        heads = self.roi_heads
        heads.mask_roi_pool = MultiScaleRoIAlign(heads.box_roi_pool.featmap_names, output_size=14, sampling_ratio=2)
        heads.mask_head = MaskRCNNHeads(pyramid_channels, [mask_channels] * _CONVOLUTIONS, dilation=1)
        heads.mask_predictor = Float32Outputs(MaskRCNNPredictor(mask_channels, mask_channels, num_classes + 1))

    def forward(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets | None = None
    ) -> Losses | Detections:
        """As ``FasterRCNN``, with the loss ``loss_mask``, or ``masks`` (M, 1, 28, 28) of the detections.

        ``masks`` are the probabilities that pixels belong to the object; they fill its box, see
        :func:`~lit_models.instance_masks.pasted`.
        """
        if targets is not None and not all("masks" in target for target in targets):
            raise NetworkError(
                "MaskRCNN learns from the masks of objects, and the data has none: take COCODetection with masks: true,"
                " or the network FasterRCNN"
            )
        return super().forward(images, sizes, targets)
