"""Data sets as LightningDataModules."""

from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.fashion_mnist import FashionMNIST
from datamodules.photo_stream import PhotoStream
from datamodules.photos import ImageNet, Photos
from datamodules.small_images import SmallImages
from datamodules.svhn import SVHN

__all__ = ["CIFAR10", "CIFAR100", "SVHN", "Digits", "FashionMNIST", "ImageNet", "PhotoStream", "Photos", "SmallImages"]
