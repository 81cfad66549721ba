"""Networks, and the LightningModules that train them.

``networks`` are plain ``nn.Module``s, ``surgery`` takes networks apart, ``tasks`` trains them. The names below are
imported when they are asked for, so that a network alone needs nothing but torch.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_models.errors import CheckpointError, NetworkError
    from lit_models.networks.alexnet import CIFARAlexNet
    from lit_models.networks.annealed_resnet import AnnealedCIFARResNet
    from lit_models.networks.googlenet import CIFARGoogLeNet, GoogLeNet
    from lit_models.networks.resnet import CIFARResNet, ResNet
    from lit_models.networks.timm_backbone import TimmBackbone
    from lit_models.networks.vanillanet import VanillaNet
    from lit_models.networks.vgg import CIFARVGG, VGG
    from lit_models.tasks.classification import ImageClassifier
    from lit_models.tasks.detection import Detector
    from lit_models.tasks.distillation import Distillation
    from lit_models.tasks.loading import load_checkpoint
    from lit_models.tasks.segmentation import Segmenter
    from lit_models.transfer.faster_rcnn import FasterRCNN
    from lit_models.transfer.fcn import FCN
    from lit_models.transfer.mask_rcnn import MaskRCNN
    from lit_models.transfer.retinanet import RetinaNet

_MODULES = {
    "AnnealedCIFARResNet": "networks.annealed_resnet",
    "CIFARAlexNet": "networks.alexnet",
    "CIFARGoogLeNet": "networks.googlenet",
    "CIFARResNet": "networks.resnet",
    "CIFARVGG": "networks.vgg",
    "CheckpointError": "errors",
    "Detector": "tasks.detection",
    "Distillation": "tasks.distillation",
    "FCN": "transfer.fcn",
    "FasterRCNN": "transfer.faster_rcnn",
    "GoogLeNet": "networks.googlenet",
    "ImageClassifier": "tasks.classification",
    "MaskRCNN": "transfer.mask_rcnn",
    "NetworkError": "errors",
    "ResNet": "networks.resnet",
    "RetinaNet": "transfer.retinanet",
    "Segmenter": "tasks.segmentation",
    "TimmBackbone": "networks.timm_backbone",
    "VGG": "networks.vgg",
    "VanillaNet": "networks.vanillanet",
    "load_checkpoint": "tasks.loading",
}

__all__ = [
    "CIFARVGG",
    "FCN",
    "VGG",
    "AnnealedCIFARResNet",
    "CIFARAlexNet",
    "CIFARGoogLeNet",
    "CIFARResNet",
    "CheckpointError",
    "Detector",
    "Distillation",
    "FasterRCNN",
    "GoogLeNet",
    "ImageClassifier",
    "MaskRCNN",
    "NetworkError",
    "ResNet",
    "RetinaNet",
    "Segmenter",
    "TimmBackbone",
    "VanillaNet",
    "load_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


# Where timm is there, ``timm.create_model`` knows our networks once this package is imported.
with suppress(ModuleNotFoundError):
    from lit_models.networks.timm_registry import register_with_timm

    register_with_timm()
