"""How long the paths of a residual network are, and how much each length matters (Veit et al. 2016, section 5).

n residual blocks make 2^n paths. The length of one is the number of branches on it, in blocks: the paper also counts
layers, two for each block. All arrays run over the lengths k = 0 … n.
"""

from __future__ import annotations

from math import comb, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def distribution(blocks: int, deleted: int = 0) -> Array:
    """The share of each length in all 2^n paths; with ``deleted`` blocks, of the paths that are left (figure 6a).

    Shape (n + 1,), which adds up to 2^-deleted.
    """
    counts = [comb(blocks - deleted, length) for length in range(blocks + 1)]
    return np.array([count / 2**blocks for count in counts])  # exact integers until the division


def survivors(blocks: int, deleted: int, lengths: range) -> float:
    """The share of the paths with one of ``lengths`` that no deletion of ``deleted`` blocks breaks."""
    left = sum(comb(blocks - deleted, length) for length in lengths)
    return left / sum(comb(blocks, length) for length in lengths)


def log_counts(blocks: int) -> Array:
    """ln C(n, k), shape (n + 1,)."""
    return np.array([log(comb(blocks, length)) for length in range(blocks + 1)])


def contributions(norms: Array) -> Array:
    """G(k) = C(n, k) · norm of a single path of length k, as shares of ΣG (figure 6c).

    Args:
        norms: mean gradient norm of single paths, shape (n + 1,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a norm of zero contributes nothing; NaN stays NaN
        log_contributions = log_counts(len(norms) - 1) + np.log(norms)
        return np.exp(log_contributions - np.logaddexp.reduce(log_contributions))


def effective_range(shares: Array, mass: float = 0.95) -> range:
    """The fewest consecutive lengths that hold ``mass`` of ``shares``; for n = 54 the paper's are lengths 5 … 17."""
    cumulative = np.concatenate([[0.0], np.cumsum(shares)]) / np.sum(shares)
    ends = np.searchsorted(cumulative, cumulative[:-1] + mass - 1e-12)
    starts = np.flatnonzero(ends < len(cumulative))
    start = starts[np.argmin(ends[starts] - starts)]
    return range(int(start), int(ends[start]))
