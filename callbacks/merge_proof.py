"""That a merged network computes what the trained one does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.surgery.reparameterize import logit_difference

TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
"""Largest allowed difference of logits, relative to the largest logit."""


class MergeError(RuntimeError):
    """The merged network, or what its checkpoint loads as, does not compute what the trained one does."""


def check_num_images(callback: L.Callback, num_images: int) -> None:
    """Raises ``MisconfigurationException`` where ``callback`` would compare on no images."""
    if num_images < 1:
        raise MisconfigurationException(
            f"{type(callback).__name__} compares on num_images={num_images} images: give 1 or more"
        )


def compare_merged(
    trained: nn.Module,
    merged_copy: Callable[[nn.Module], nn.Module],
    images: Tensor,
    otherwise: str,
) -> dict[str, float]:
    """The largest difference of logits, absolute and relative to the largest logit, in float32 and in float64.

    Args:
        trained: in float32 on the CPU, in evaluation mode.
        merged_copy: returns a merged copy of a network.
        images: (N, C, H, W), on which the two are compared.
        otherwise: what is said to have become of the training where the difference is larger.

    Raises:
        MergeError: where it is larger than ``TOLERANCES``.
    """
    found: dict[str, float] = {}
    networks = {"float32": (trained, images), "float64": (copy.deepcopy(trained).double(), images.double())}
    for name, (before, inputs) in networks.items():
        absolute, relative = logit_difference(before, merged_copy(before), inputs)
        found |= {f"max_logit_difference_{name}": absolute, f"relative_logit_difference_{name}": relative}
        if not relative <= TOLERANCES[name]:  # NaN is not
            raise MergeError(
                f"the merged network differs from the trained one by {relative:.1e} of the largest logit in {name},"
                f" where {TOLERANCES[name]:.0e} is allowed: {otherwise}"
            )
    return found
