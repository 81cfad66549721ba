"""Networks, and the LightningModules that train them.

Importing the package imports every network: a checkpoint may name only classes that are imported.
"""

from lit_models.checkpoints import CheckpointError, load_checkpoint
from lit_models.distillation import Distillation
from lit_models.googlenet import CIFARGoogLeNet, GoogLeNet
from lit_models.image_classifier import ImageClassifier
from lit_models.resnet import CIFARResNet, ResNet
from lit_models.timm_backbone import TimmBackbone
from lit_models.timm_registry import register_with_timm
from lit_models.vanillanet import VanillaNet
from lit_models.vgg import CIFARVGG, VGG

__all__ = [
    "CIFARVGG",
    "VGG",
    "CIFARGoogLeNet",
    "CIFARResNet",
    "CheckpointError",
    "Distillation",
    "GoogLeNet",
    "ImageClassifier",
    "ResNet",
    "TimmBackbone",
    "VanillaNet",
    "load_checkpoint",
]

register_with_timm()
