"""Random numbers as a function of counters.

A draw is a function of (seed, epoch, index of the image in its data set), whichever process makes it and whatever was
drawn before. Nothing has to be saved to make it again.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """What a generator of :func:`generator` is for; no two purposes share random numbers."""

    ORDER = 1
    MIX = 2
    SPLIT = 3
    POLICY = 4


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): uint64 -> uint64, a bijection."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniforms(seed: int, epoch: int, indices: Tensor, count: int) -> Tensor:
    """``count`` uniform numbers in [0, 1) for each image, a function of (seed, epoch, index) alone.

    Args:
        indices: int64 (N,), positions in the whole data set.

    Returns:
        float32 (N, count) on the CPU.
    """
    key = np.asarray([seed], dtype=np.uint64)
    for counter in (np.asarray([epoch], dtype=np.uint64), indices.numpy().astype(np.uint64)):
        key = splitmix64(splitmix64(key + _GOLDEN) + counter)
    draws = splitmix64(key[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))
    # 24 bits fill the significand of a float32, so that rounding never gives 1.
    return torch.from_numpy((draws >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def generator(stream: Stream, *counters: int) -> np.random.Generator:
    """A generator that is a function of its purpose and of non-negative counters."""
    return np.random.default_rng([int(stream), *counters])
