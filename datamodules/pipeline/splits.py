"""Stratified, nested splits."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from datamodules.pipeline.randomness import Stream, generator


def stratified_order(labels: Tensor) -> Tensor:
    """An order of the data set in which every stretch holds the classes in their proportions, within one image.

    The r-th image, in random order, of a class of n stands at r / n, and the classes are merged by this number. So a
    shorter prefix lies within a longer one, and starts with one image of each class. The order depends on the labels
    alone: runs with different seeds hold out the same images.

    Args:
        labels: int64 (N,).

    Returns:
        int64 (N,), a permutation.
    """
    random = torch.from_numpy(generator(Stream.SPLIT).permutation(len(labels)))
    by_class = random[labels[random].argsort(stable=True)]
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    sorted_labels = labels[by_class]
    rank = torch.arange(len(labels)) - starts[sorted_labels]
    # Two classes meet at the same fraction often; which comes first is random, not always the lower label.
    ties = torch.from_numpy(generator(Stream.SPLIT, len(counts)).permutation(len(counts)))[sorted_labels]
    position = rank.double() / counts[sorted_labels].double()
    return by_class[torch.from_numpy(np.lexsort((ties.numpy(), position.numpy())))]


def split(
    labels: Tensor,
    val_fraction: float,
    train_fraction: float = 1.0,
    train_size: int | None = None,
    held_out: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cut a validation part from the end of the stratified order, and take the training part from its start.

    Args:
        labels: int64 (N,).
        val_fraction: share of all images that is held out for validation.
        train_fraction: share of the remaining images to train on; a smaller one lies within a larger one.
        train_size: number of images to train on, in place of ``train_fraction``.
        held_out: number of images at the end that have been set aside for validation; if there are any, they are the
            validation part, unless ``val_fraction`` is 0.

    Returns:
        Indices of the training and of the validation images, ascending, int64.

    Raises:
        MisconfigurationException: a fraction outside its range, or more images asked for than there are.
    """
    if not 0 <= val_fraction < 1:
        raise MisconfigurationException(
            f"val_fraction is {val_fraction}; give a number from 0 up to, not including, 1."
        )
    if not 0 < train_fraction <= 1:
        raise MisconfigurationException(f"train_fraction is {train_fraction}; give a number above 0 and at most 1.")
    own = len(labels) - held_out
    order = stratified_order(labels[:own])
    rest = own - round((0 if held_out else val_fraction) * own)
    size = round(train_fraction * rest) if train_size is None else train_size
    if not 0 < size <= rest:
        raise MisconfigurationException(
            f"{size} training images are asked for (train_size or train_fraction), but {rest} remain of "
            f"{own} after the validation part (val_fraction={val_fraction}); ask for 1 to {rest}."
        )
    val = torch.arange(own, len(labels)) if held_out and val_fraction else order[rest:].sort().values
    return order[:size].sort().values, val
