"""Data sets as LightningDataModules."""

from datamodules.cifar import CIFAR10, CIFAR100
from datamodules.digits import Digits
from datamodules.small_images import SmallImages

__all__ = ["CIFAR10", "CIFAR100", "Digits", "SmallImages"]
