"""Whether a network and the images of a data set go together, before anything is trained."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.func import functional_call

from lit_models.evaluation import evaluation_mode


def check_images(net: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Show ``net`` one black image of ``image_shape`` (C, H, W), which has to give logits (1, ``num_classes``).

    Nothing of the network changes.

    Raises:
        MisconfigurationException: with the network's own reason where it can't take such an image, as where its
            strides leave nothing of one; and where something else than logits comes out.
    """
    channels, height, width = image_shape
    name, size = type(net).__name__, f"{height}×{width} pixels and {channels} channels"
    parameter = next(net.parameters(), torch.empty(0))
    image = torch.zeros(1, *image_shape, device=parameter.device)
    try:
        with evaluation_mode(net), torch.no_grad():
            logits = net(image)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise MisconfigurationException(f"{name} can't take images of {size}: {error}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise MisconfigurationException(
            f"{name} has to return logits of shape (N, {num_classes}); for N = 1 image of {size} it returned {found}"
        )


def check_batches_of_one(net: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Train ``net`` on a batch of one black image of ``image_shape`` (C, H, W), up to its logits.

    Nothing of the network changes.

    Raises:
        MisconfigurationException: if batch normalisation is left with one value of each channel, whose variance is 0.
    """
    tensors = {name: tensor.clone() for name, tensor in net.named_buffers()}
    image = torch.zeros(1, *image_shape, device=next(net.parameters(), torch.empty(0)).device)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            functional_call(net, tensors, (image,))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise MisconfigurationException(
            f"the batch normalisation of this {type(net).__name__} can't be trained with a batch_size of 1, where"
            " one value of each channel is left, without variance; give at least 2"
        ) from error
