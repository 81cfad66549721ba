"""The grading, tried on claims whose truth is known: how often it comes to which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np

from experiments.claims.statistics import ALPHA, contrast, pooled

LOOKS = (3, 5, 8)
MARGIN = 1.5
"""δ in units of the spread s."""
ARMS = 8
"""In the regime; the spread is pooled over them."""
PROMISES = (
    (0.0, f"held and contradicted together at most {ALPHA:.0%}"),
    (MARGIN, f"absent at most {ALPHA:.0%}: this is δ"),
    (3.0, "held at least 80%"),
)
"""True effects in units of the spread s, and what the design promises of each."""


def simulate(effect: float, claims: int = 500, seed: int = 0) -> Counter[str]:
    """Verdicts of as many claims, each looked at until it is decided or out of looks.

    Args:
        effect: true difference of two arms, in units of the spread between seeds.
        claims: number of simulated claims.
        seed: random seed.
    """
    return Counter(_verdicts(effect, claims, np.random.default_rng(seed)))


def _verdicts(effect: float, claims: int, generator: np.random.Generator) -> Iterator[str]:
    weights = {"a": 1.0, "b": -1.0}
    seeds = {"a": LOOKS, "b": LOOKS}
    for _ in range(claims):
        values = generator.standard_normal((ARMS, LOOKS[-1]))
        values[0] += effect
        for look in LOOKS:
            samples = {"a": values[0, :look].tolist(), "b": values[1, :look].tolist()}
            verdict = contrast(samples, weights, pooled(values[:, :look].tolist()), "greater", MARGIN, seeds).verdict
            if verdict != "undecided":
                break
        yield verdict


@cache
def table() -> str:
    """Rates beside the promises, for the page."""
    lines = ["| true effect | held | contradicted | absent | undecided | the design promises |", "| --- " * 6 + "|"]
    for effect, promise in PROMISES:
        counts = simulate(effect)
        rates = [f"{counts[name] / counts.total():.1%}" for name in ("held", "contradicted", "absent", "undecided")]
        lines.append(f"| {effect:g} s | {' | '.join(rates)} | {promise} |")
    return "\n".join(lines)
