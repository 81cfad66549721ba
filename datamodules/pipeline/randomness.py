"""Random numbers as a function of counters.

A draw is a function of (seed, epoch, index of the image in its data set), whichever process makes it and whatever was
drawn before. Nothing has to be saved to make it again.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """What a generator of :func:`generator` is for; no two purposes share random numbers."""

    ORDER = 1
    MIX = 2
    SPLIT = 3
    POLICY = 4


def splitmix64(state: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014), a bijection of 64 bits held in int64."""
    state = (state ^ _shifted_right(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shifted_right(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shifted_right(state, 31)


def uniforms(seed: int, epoch: int, indices: Tensor, count: int) -> Tensor:
    """``count`` uniform numbers in [0, 1) for each image, a function of (seed, epoch, index) alone.

    Args:
        indices: int64 (N,), positions in the whole data set.

    Returns:
        float32 (N, count) on the CPU.
    """
    key = torch.tensor([_signed(seed)])
    for counter in (torch.tensor([epoch]), indices):
        key = splitmix64(splitmix64(key + _GOLDEN) + counter)
    # 24 bits fill the significand of a float32, so that rounding never gives 1.
    return _shifted_right(_sequence(key, count), 40).float() * 2**-24


def normals(keys: Tensor, count: int) -> Tensor:
    """``count`` standard normal numbers for each key, a function of the key alone (Box and Muller 1958).

    Args:
        keys: float (N,), uniform draws.

    Returns:
        float32 (N, count), on the device of the keys.
    """
    bits = _sequence(splitmix64((keys * 2**24).long()), -(-count // 2))
    radius = (1 - _shifted_right(bits, 40).float() * 2**-24).log_().mul_(-2).sqrt_()
    angle = (bits & (2**24 - 1)).float() * (2 * math.pi * 2**-24)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), 1)[:, :count]


def _sequence(keys: Tensor, count: int) -> Tensor:
    """The first ``count`` outputs of SplitMix64 from each key: int64 (N,) -> int64 (N, count)."""
    return splitmix64(keys[:, None] + _GOLDEN * torch.arange(1, count + 1, device=keys.device))


def _shifted_right(state: Tensor, bits: int) -> Tensor:
    """As of unsigned numbers: zeros come in from the left."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The number of int64 that has the bits of ``word``."""
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)


def generator(stream: Stream, *counters: int) -> np.random.Generator:
    """A generator that is a function of its purpose and of non-negative counters."""
    return np.random.default_rng([int(stream), *counters])
