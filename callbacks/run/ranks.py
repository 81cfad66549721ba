"""What the processes of a run have in common."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn


def broadcast_buffers(module: nn.Module) -> None:
    """Give ``module`` the buffers of rank 0, which are those in its checkpoints.

    ``DistributedDataParallel`` does so before each forward pass of the training. After the last one every rank has
    batch statistics of its own, with which Lightning would validate.
    """
    if dist.is_available() and dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
