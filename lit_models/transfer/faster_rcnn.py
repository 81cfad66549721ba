"""Faster R-CNN (Ren et al. 2015) on any backbone, with a feature pyramid or without (C4), of torchvision's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lit_models.errors import check_choice
from lit_models.freezing import Norm
from lit_models.settings import keeps_arguments
from lit_models.transfer.float32 import Float32Anchors, Float32Outputs
from lit_models.transfer.pyramid import Pyramid
from lit_models.transfer.targets import Detections, Losses, Targets
from lit_models.transfer.trunk import OnTrunk, Trunk, detached_last_stage

if TYPE_CHECKING:
    from typing_extensions import Self

Neck = Literal["fpn", "c4"]
"""fpn: a feature pyramid, and two linear layers on regions of it. c4: the maps of the last stage but one; the last
stage is the head of the regions (the form of Bag of Tricks, section 6.1)."""

_RATIOS = (0.5, 1.0, 2.0)


@keeps_arguments
class FasterRCNN(OnTrunk):
    """Two stages: regions that may hold an object, then a class and a better box for each.

    In training it returns losses, in evaluation detections. The defaults are those of torchvision for the pyramid;
    the recipe for ``c4`` of the authors of Bag of Tricks is in the experiment files.

    Args:
        backbone: A network; see :class:`~lit_models.interfaces.Backbone`.
        num_classes: K, without the background.
        neck: See ``Neck``.
        frozen_stages: See :class:`~lit_models.transfer.trunk.Trunk`.
        norm: Of the backbone, see ``Norm``.
        pyramid_channels: Of each map of the pyramid.
        head_channels: Of the two linear layers on a region.
        finest_stride: The pyramid begins at the map of this stride, in pixels.
        training_proposals: Regions that the first stage hands on in training: the best of each map before non-maximum
            suppression, and of an image after it.
        test_proposals: In evaluation.
        regions_per_image: Regions that the second stage is trained on.
        nms: Least overlap (IoU) of two detections of a class of which one is dropped.
        min_score: Of a detection.
        max_detections: Of an image.

    Raises:
        NetworkError: For an unknown neck, or a backbone without the maps that the neck needs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        neck: Neck = "fpn",
        frozen_stages: int = 0,
        norm: Norm = "train",
        pyramid_channels: int = 256,
        head_channels: int = 1024,
        finest_stride: int = 4,
        training_proposals: tuple[int, int] = (2000, 2000),
        test_proposals: tuple[int, int] = (1000, 1000),
        regions_per_image: int = 512,
        nms: float = 0.5,
        min_score: float = 0.05,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_choice("neck", neck, Neck)
        self.num_classes = num_classes
        self.backbone = Trunk(backbone, frozen_stages, norm)
        if neck == "fpn":
            self.neck: nn.Module = Pyramid(self.backbone, pyramid_channels, finest_stride, LastLevelMaxPool())
            # 32 to 512 pixels on maps with strides of 4 to 64
            anchors = Float32Anchors(
                tuple((8 * stride,) for stride in self.neck.strides), (_RATIOS,) * len(self.neck.strides)
            )
            channels = pyramid_channels
            pool = MultiScaleRoIAlign(self.neck.names[:-1], output_size=7, sampling_ratio=2)
            head: nn.Module = TwoMLPHead(channels * 49, head_channels)
            features = head_channels
        else:
            features = self.backbone.channels[-1]
            last_stage = detached_last_stage(self.backbone)
            self.neck = _LastMap()
            base = self.backbone.strides[-1]
            anchors = Float32Anchors((tuple(base * scale for scale in (2, 4, 8, 16, 32)),), (_RATIOS,))
            channels = self.backbone.channels[-1]
            pool = MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2)
            head = nn.Sequential(last_stage, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.rpn = RegionProposalNetwork(
            anchors,
            Float32Outputs(RPNHead(channels, anchors.num_anchors_per_location()[0])),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": training_proposals[0], "testing": test_proposals[0]},
            post_nms_top_n={"training": training_proposals[1], "testing": test_proposals[1]},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            pool,
            head,
            Float32Outputs(FastRCNNPredictor(features, num_classes + 1)),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=regions_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=min_score,
            nms_thresh=nms,
            detections_per_img=max_detections,
        )

    def forward(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets | None = None
    ) -> Losses | Detections:
        """Losses by name in training, otherwise the detections of each image.

        Args:
            images: (N, C, H, W), each at the top left of its canvas.
            sizes: (height, width) of each image on its canvas.
            targets: Boxes and labels 0 … K − 1 of each image, in training.
        """
        maps = self.neck(self.backbone(images))
        batch = ImageList(images, sizes)
        if self.training:
            assert targets is not None
            # Label 0 is the background here.
            targets = [{**target, "labels": target["labels"] + 1} for target in targets]
        regions, losses = self.rpn(batch, maps, targets)
        detections, more_losses = self.roi_heads(maps, regions, sizes, targets)
        if self.training:
            return {**losses, **more_losses}
        return [{**detection, "labels": detection["labels"] - 1} for detection in detections]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.train(mode)  # once more: with c4 its last stage is in the head
        return self


class _LastMap(nn.Module):
    def forward(self, maps: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {"0": maps[-1]}
