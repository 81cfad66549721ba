"""What a network costs: parameters, and multiply-adds of one image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from lit_models.evaluation import evaluation_mode


def count_parameters(net: nn.Module) -> int:
    """Trainable or not; buffers don't count."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Multiply-adds of convolutions and matrix products for one image of ``image_shape`` (C, H, W)."""
    with FlopCounterMode(display=False) as counter:
        _run_on_meta(net, image_shape)
    return counter.get_total_flops() // 2


def count_branch_macs(net: Any, image_shape: tuple[int, ...]) -> list[int]:
    """Multiply-adds of each branch of a :class:`~lit_models.interfaces.ResidualNetwork`, in forward order."""
    macs: list[int] = []

    def count(block: Any, inputs: tuple[torch.Tensor]) -> None:
        with FlopCounterMode(display=False) as counter:
            block.branch(*inputs)
        macs.append(counter.get_total_flops() // 2)

    hooks = [block.register_forward_pre_hook(count) for block in net.residual_blocks().values()]
    try:
        _run_on_meta(net, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def _run_on_meta(net: nn.Module, image_shape: tuple[int, ...]) -> None:
    """A forward pass on the meta device in evaluation mode: nothing is computed and no weight is copied."""
    state = {
        name: tensor.detach().to("meta")
        for named in (net.named_parameters(), net.named_buffers())
        for name, tensor in named
    }
    with evaluation_mode(net), torch.no_grad():
        functional_call(net, state, (torch.empty(1, *image_shape, device="meta"),))
