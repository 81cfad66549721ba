"""Parts of a backbone that a training leaves as they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from lit_models.errors import NetworkError, check_choice
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import BATCH_NORMS

Norm = Literal["train", "statistics", "frozen"]
"""What batch normalisation of a backbone does in training. train: as in classification. statistics: it normalises with
its running statistics, which stay as they are; γ and β are trained. frozen: all of it stays as it is."""


def freeze(net: nn.Module, stages: int, norm: Norm) -> list[nn.Module]:
    """Take the finest stages out of the training, and batch normalisation as ``norm`` says.

    Args:
        net: a :class:`~lit_models.interfaces.Backbone`.
        stages: Everything that this many of the finest maps depend on is not trained, and its batch normalisation
            stays as it is.
        norm: Of all the other stages.

    Returns:
        The normalisation layers to keep in evaluation mode.

    Raises:
        NetworkError: For an unknown ``norm``, or more stages than the network has maps.
    """
    check_choice("norm", norm, Norm)
    count = len(net.feature_strides)  # type: ignore[arg-type]
    if not 0 <= stages <= count:
        raise NetworkError(f"frozen_stages is {stages}; this backbone has maps of {count} resolutions")
    frozen = parameters_of_maps(net, stages)
    fixed: list[nn.Module] = [
        module
        for module in net.modules()
        if isinstance(module, BATCH_NORMS) and (norm != "train" or (module.affine and id(module.weight) in frozen))
    ]
    for parameter in net.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    if norm == "frozen":
        for module in fixed:
            module.requires_grad_(False)
    return fixed


def check_statistics(fixed: list[nn.Module], norm: Norm) -> None:
    """Raises ``NetworkError`` where statistics are kept that no image has been through."""
    norms = [module for module in fixed if module.track_running_stats]
    if norm != "train" and norms and all(_is_new(module) for module in norms):
        raise NetworkError(
            f"norm: {norm} keeps the statistics of the backbone's batch normalisation, and this backbone was"
            " never trained: start from a trained one, or set norm: train"
        )


def _is_new(norm: nn.Module) -> bool:
    return not norm.running_mean.any() and bool((norm.running_var == 1).all())  # type: ignore[operator,union-attr]


def parameters_of_maps(net: nn.Module, count: int) -> set[int]:
    """``id`` of the parameters that the ``count`` finest maps depend on, found by a backward pass."""
    if count == 0:
        return set()
    parameters = list(net.parameters())
    first = next(parameter for parameter in parameters if parameter.ndim == 4)
    trained = [parameter.requires_grad for parameter in parameters]
    side = 2 * max(32, net.feature_strides[-1])  # type: ignore[index,operator]
    try:
        with evaluation_mode(net), torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_(True)
            images = torch.zeros(1, first.shape[1], side, side, dtype=first.dtype, device=first.device)
            maps = net.feature_maps(images)  # type: ignore[operator]
            total = torch.stack([map_.sum() for map_ in maps[:count]]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    finally:
        for parameter, was_trained in zip(parameters, trained, strict=True):
            parameter.requires_grad_(was_trained)
    return {id(parameter) for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
