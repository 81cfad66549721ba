"""Whether float32 is rounded to TF32 in matrix products and convolutions."""

from __future__ import annotations

import torch


def allow_tf32(allowed: bool) -> None:
    """Let devices that have it round factors to TF32's 10 bits, several times as fast, or keep all 23 of float32.

    Left alone, torch rounds in convolutions and not in matrix products.
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
