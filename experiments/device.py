"""Where a command computes, and in what precision it really does."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def real_precision(precision: str) -> str:
    """What Lightning makes of it on this machine: 16-mixed is bfloat16 on a CPU."""
    return "bf16-mixed" if precision == "16-mixed" and best_device().type == "cpu" else precision
