"""Deep networks with stochastic depth (Huang et al. 2016): train short networks, evaluate the deep one.

The blocks do the skipping (``lit_models.residual``); this callback decides which, and when.
"""

from __future__ import annotations

import math
import os
import time
from copy import deepcopy
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from lit_models.interfaces import Gate, ResidualBlock, ResidualNetwork, Window

Decay = Literal["linear", "uniform"]
Mode = Literal["batch", "sample"]


def survival_probs(num_blocks: int, last: float, decay: Decay = "linear") -> list[float]:
    """p_l of the blocks l = 1..L, where ``last`` is p_L.

    ``"linear"``: p_l = 1 − l/L·(1 − p_L), equation 4. ``"uniform"``: p_l = p_L.
    """
    if decay == "uniform":
        return [last] * num_blocks
    return [1 - l / num_blocks * (1 - last) for l in range(1, num_blocks + 1)]


def draw_gates(probs: list[float], mode: Mode, seed: int, step: int) -> list[Gate]:
    """The gates of one optimizer step: a function of seed and step, so that every process draws the same.

    ``"batch"``: each block survives with probability p_l. ``"sample"``: each block keeps the share p_l of the batch,
    a window of rows drawn for this block.
    """
    draws = np.random.default_rng([seed, step]).random(len(probs)).tolist()
    if mode == "batch":
        return [draw < p for draw, p in zip(draws, probs, strict=True)]
    return [Window(draw, p) if p < 1 else True for draw, p in zip(draws, probs, strict=True)]


def branch_macs(network: nn.Module, input_shape: tuple[int, ...]) -> list[int]:
    """Multiply-adds of each residual branch for one image of shape (C, H, W), in forward order.

    Counted on a copy without data, so it costs neither memory nor time worth mentioning.
    """
    network = deepcopy(network).to("meta").eval()
    macs = []

    def count(block: nn.Module, inputs: tuple[Tensor]) -> None:
        with FlopCounterMode(display=False) as counter:
            block.branch(*inputs)
        macs.append(counter.get_total_flops() // 2)

    for block in network.residual_blocks().values():
        block.register_forward_pre_hook(count)
    with torch.no_grad():
        network(torch.empty(1, *input_shape, device="meta"))
    return macs
