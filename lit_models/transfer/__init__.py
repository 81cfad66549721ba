"""Trained networks as backbones of detectors and segmenters (Bag of Tricks, section 6; VanillaNet on COCO).

The parts around a backbone are torchvision's.
"""
