"""The grading, tried on claims whose truth is known: how often it comes to which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from experiments.claims.statistics import ALPHA, contrast, pooled

ARMS = 8
"""In the regime; the spread is pooled over them."""
AT_ZERO, AT_MARGIN = f"held and contradicted together at most {ALPHA:.0%}", f"absent at most {ALPHA:.0%}: this is δ"
DESIGNS = (
    ((3, 5, 8), 1.5, ((0.0, AT_ZERO), (1.5, AT_MARGIN), (3.0, "held at least 80%"))),
    ((3,), 1.0, ((0.0, AT_ZERO), (1.0, AT_MARGIN), (3.0, "held at least 80%"))),
)
"""Looks, δ in units of the spread s, and true effects in these units with what the design promises of each."""


def simulate(
    effect: float, claims: int = 500, looks: Sequence[int] = (3, 5, 8), margin: float = 1.5, seed: int = 0
) -> Counter[str]:
    """Verdicts of as many claims, each looked at until it is decided or out of looks.

    Args:
        effect: true difference of two arms, in units of the spread between seeds.
        claims: number of simulated claims.
        looks: numbers of seeds at which a claim is graded.
        margin: δ in units of the spread.
        seed: random seed.
    """
    return Counter(_verdicts(effect, claims, looks, margin, np.random.default_rng(seed)))


def _verdicts(
    effect: float, claims: int, looks: Sequence[int], margin: float, generator: np.random.Generator
) -> Iterator[str]:
    weights = {"a": 1.0, "b": -1.0}
    seeds = {"a": looks, "b": looks}
    for _ in range(claims):
        values = generator.standard_normal((ARMS, looks[-1]))
        values[0] += effect
        for look in looks:
            samples = {"a": values[0, :look].tolist(), "b": values[1, :look].tolist()}
            verdict = contrast(samples, weights, pooled(values[:, :look].tolist()), "greater", margin, seeds).verdict
            if verdict != "undecided":
                break
        yield verdict


@cache
def table() -> str:
    """Rates beside the promises, for the page."""
    header = ["looks", "δ", "true effect", "held", "contradicted", "absent", "undecided", "the design promises"]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for looks, margin, promises in DESIGNS:
        for effect, promise in promises:
            counts = simulate(effect, looks=looks, margin=margin)
            rates = [f"{counts[name] / counts.total():.1%}" for name in ("held", "contradicted", "absent", "undecided")]
            cells = [", ".join(map(str, looks)), f"{margin:g} s", f"{effect:g} s", *rates, promise]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
