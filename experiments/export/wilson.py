"""How certain a share is that was counted."""

from __future__ import annotations

import math

_Z = 1.959963984540054  # 97.5% of a normal distribution lie below


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """95% interval of a probability from ``hits`` in ``trials`` > 0 (Wilson 1927, score interval)."""
    share = hits / trials
    centre = share + _Z**2 / (2 * trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)
