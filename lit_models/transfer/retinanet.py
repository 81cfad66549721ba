"""RetinaNet (Lin et al. 2017) on any backbone, of torchvision's parts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from lit_models.errors import check_choice
from lit_models.freezing import Norm
from lit_models.settings import keeps_arguments
from lit_models.transfer.float32 import Float32Anchors, Float32Outputs
from lit_models.transfer.pyramid import Pyramid
from lit_models.transfer.targets import Detections, Losses, Targets
from lit_models.transfer.trunk import OnTrunk, Trunk

CoarseMaps = Literal["pyramid", "backbone"]
"""Of what the map P6 is made: the coarsest map of the pyramid (torchvision), or of the backbone (VanillaNet)."""


@keeps_arguments
class RetinaNet(OnTrunk):
    """One stage: a class and a box for each of nine anchors at every pixel of a pyramid.

    In training it returns losses, in evaluation detections. The defaults are those of torchvision.

    Args:
        backbone: A network; see :class:`~lit_models.interfaces.Backbone`.
        num_classes: K.
        frozen_stages: See :class:`~lit_models.transfer.trunk.Trunk`.
        norm: Of the backbone, see ``Norm``.
        pyramid_channels: Of each map of the pyramid.
        finest_stride: The pyramid begins at the map of this stride, in pixels.
        coarse_maps: See ``CoarseMaps``.
        nms: Least overlap (IoU) of two detections of a class of which one is dropped.
        min_score: Of a detection.
        max_detections: Of an image.

    Raises:
        NetworkError: For a backbone without the maps that the pyramid needs.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        frozen_stages: int = 0,
        norm: Norm = "train",
        pyramid_channels: int = 256,
        finest_stride: int = 8,
        coarse_maps: CoarseMaps = "pyramid",
        nms: float = 0.5,
        min_score: float = 0.05,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        check_choice("coarse_maps", coarse_maps, CoarseMaps)
        self.num_classes = num_classes
        self.backbone = Trunk(backbone, frozen_stages, norm)
        source = pyramid_channels if coarse_maps == "pyramid" else self.backbone.channels[-1]
        self.neck = Pyramid(self.backbone, pyramid_channels, finest_stride, LastLevelP6P7(source, pyramid_channels))
        # Three sizes an octave, from 32 to 645 pixels on maps with strides of 8 to 128
        sizes = tuple(tuple(int(4 * stride * 2 ** (i / 3)) for i in range(3)) for stride in self.neck.strides)
        anchors = Float32Anchors(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
        head = RetinaNetHead(pyramid_channels, anchors.num_anchors_per_location()[0], num_classes)
        self.head = Float32Outputs(head)
        # Its losses and what it makes of the outputs; as a module it would be in the state twice.
        self._geometry = [
            TorchvisionRetinaNet(
                _Channels(pyramid_channels),
                num_classes,
                anchor_generator=anchors,
                head=head,
                score_thresh=min_score,
                nms_thresh=nms,
                detections_per_img=max_detections,
            )
        ]

    def forward(
        self, images: Tensor, sizes: list[tuple[int, int]], targets: Targets | None = None
    ) -> Losses | Detections:
        """Losses by name in training, otherwise the detections of each image; see ``FasterRCNN``."""
        [geometry] = self._geometry
        maps = list(self.neck(self.backbone(images)).values())
        outputs = self.head(maps)
        anchors = geometry.anchor_generator(ImageList(images, sizes), maps)
        if self.training:
            assert targets is not None
            return geometry.compute_loss(targets, outputs, anchors)
        per_pixel = geometry.anchor_generator.num_anchors_per_location()[0]
        counts = [per_pixel * map_.shape[2] * map_.shape[3] for map_ in maps]
        by_map = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
        return geometry.postprocess_detections(by_map, [list(all_.split(counts)) for all_ in anchors], sizes)


class _Channels(nn.Module):
    """torchvision asks a backbone how many channels its maps have."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
