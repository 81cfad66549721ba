"""Data sets as LightningDataModules."""

from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.detection import COCODetection, VOCDetection
from datamodules.digits import Digits
from datamodules.fashion_mnist import FashionMNIST
from datamodules.photo_stream import PhotoStream
from datamodules.photos import ImageNet, Photos
from datamodules.segmentation import ADE20K, SegmentationFolder, VOCSegmentation
from datamodules.small_images import SmallImages
from datamodules.svhn import SVHN

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR100",
    "SVHN",
    "COCODetection",
    "Digits",
    "FashionMNIST",
    "ImageNet",
    "PhotoStream",
    "Photos",
    "SegmentationFolder",
    "SmallImages",
    "VOCDetection",
    "VOCSegmentation",
]
