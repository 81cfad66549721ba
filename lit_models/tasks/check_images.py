"""Whether a network and the images of a data set go together, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.func import functional_call

from lit_models.evaluation import evaluation_mode

ImageShape = tuple[int, int, int]
"""(C, H, W)"""


@contextmanager
def black_image(net: nn.Module, image_shape: ImageShape) -> Iterator[Tensor]:
    """One black image (1, C, H, W) to show to ``net``, which within the context is in evaluation mode.

    Nothing of the network changes.

    Raises:
        MisconfigurationException: with the network's own reason where it can't take such an image, as where its
            strides leave nothing of one.
    """
    try:
        with evaluation_mode(net), torch.no_grad():
            yield _black(net, image_shape)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise MisconfigurationException(
            f"{type(net).__name__} can't take images of {_in_words(image_shape)}: {error}"
        ) from error


def check_images(net: nn.Module, image_shape: ImageShape, num_classes: int, per_pixel: bool = False) -> None:
    """Show ``net`` a :func:`black_image`, which has to give logits (1, K), or with ``per_pixel`` (1, K, H, W).

    Raises:
        MisconfigurationException: where the network can't take such an image, and where something else comes out.
    """
    with black_image(net, image_shape) as image:
        logits = net(image)
    expected = (num_classes, *image_shape[1:]) if per_pixel else (num_classes,)
    if not isinstance(logits, Tensor) or logits.shape != (1, *expected):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise MisconfigurationException(
            f"{type(net).__name__} has to return logits of shape (N, {', '.join(map(str, expected))}); for N = 1 image"
            f" of {_in_words(image_shape)} it returned {found}"
        )


def check_batches_of_one(net: nn.Module, image_shape: ImageShape) -> None:
    """Train ``net`` on a batch of one black image of ``image_shape`` (C, H, W), up to its logits.

    Nothing of the network changes.

    Raises:
        MisconfigurationException: if batch normalisation is left with one value of each channel, whose variance is 0.
    """
    tensors = {name: tensor.clone() for name, tensor in net.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng():
            functional_call(net, tensors, (_black(net, image_shape),))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise MisconfigurationException(
            f"the batch normalisation of this {type(net).__name__} can't be trained with a batch_size of 1, where"
            " one value of each channel is left, without variance; give at least 2"
        ) from error


def _black(net: nn.Module, image_shape: ImageShape) -> Tensor:
    return torch.zeros(1, *image_shape, device=next(net.parameters(), torch.empty(0)).device)


def _in_words(image_shape: ImageShape) -> str:
    channels, height, width = image_shape
    return f"{height}×{width} pixels and {channels} channels"
