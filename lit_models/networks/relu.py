"""ReLU of a tensor that nobody needs afterwards."""

from __future__ import annotations

import torch
from torch import Tensor


def relu(x: Tensor) -> Tensor:
    """max(x, 0), in place of ``x``, except under autocast on a CPU: there bfloat16 is faster with a new tensor.

    On two cores with AVX-512 a step of ResNet-20 with 128 images takes 0.95 of the time for it; in float32 a ReLU in
    place takes a third of one that is not.
    """
    # Asked of autocast and not of x, which has neither dtype nor device while torch.fx traces the network.
    return torch.relu(x) if torch.is_autocast_enabled("cpu") else x.relu_()
