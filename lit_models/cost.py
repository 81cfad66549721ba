"""What a network costs: parameters, and multiply-adds of one image."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(net: nn.Module) -> int:
    """Trainable or not; buffers don't count."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of convolutions and matrix products for one image of ``image_shape`` (C, H, W).

    The forward pass runs on the meta device in evaluation mode: nothing is computed and no weight is copied.
    """
    state = {
        name: tensor.detach().to("meta")
        for named in (net.named_parameters(), net.named_buffers())
        for name, tensor in named
    }
    modes = {module: module.training for module in net.modules()}
    counter = FlopCounterMode(display=False)
    try:
        net.eval()
        with torch.no_grad(), counter:
            functional_call(net, state, (torch.empty(1, *image_shape, device="meta"),))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return counter.get_total_flops() // 2
