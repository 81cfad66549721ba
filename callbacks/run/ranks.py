"""What the processes of a run have in common."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def broadcast_buffers(module: nn.Module) -> None:
    """Give ``module`` the buffers of rank 0, which are those in its checkpoints.

    ``DistributedDataParallel`` does so before each forward pass of the training. After the last one every rank has
    batch statistics of its own, with which Lightning would validate.
    """
    if dist.is_available() and dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


class Consensus:
    """The largest of the numbers that the ranks say, which each of them gets one call later.

    So no rank waits for another, nor, as the numbers are on the CPU, for a GPU. A single process gets its own at once.
    """

    def __init__(self, world_size: int) -> None:
        self.group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self._before: tuple[Tensor, Any] | None = None

    def __call__(self, number: int) -> int:
        """Say ``number``, and hear the largest of the call before, 0 at first. All ranks have to call."""
        if self.group is None:
            return number
        said = torch.tensor(number)
        before, self._before = self._before, (said, dist.all_reduce(said, dist.ReduceOp.MAX, self.group, async_op=True))
        if before is None:
            return 0
        numbers, work = before
        work.wait()
        return int(numbers)
