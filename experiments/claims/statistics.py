"""How a claim about learning is graded: pooled spread, three looks, two one-sided tests.

A contrast is a weighted sum of the means of arms, such as a difference. The spread between seeds is pooled over all
arms of a regime. Each of the looks has its share of α, so that the chance of a wrong verdict is at most α in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import inf, sqrt
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

Verdict = Literal["held", "contradicted", "absent", "undecided", "not run"]
ALPHA = 0.05


class Spread(NamedTuple):
    """Standard deviation between the seeds of one arm, and its degrees of freedom."""

    value: float
    freedom: int


class Interval(NamedTuple):
    """An estimate with the interval of its look."""

    estimate: float
    low: float
    high: float


class Grade(NamedTuple):
    """What the data say of a claim."""

    verdict: Verdict
    interval: Interval | None = None
    seeds: tuple[int, ...] = ()
    """Networks of each arm that count; in a contrast those of its look."""
    decides: int = 0
    """Of the looks that are left the first, as its number, at which the estimate of now would be decided, if any."""


def pooled(arms: Sequence[Sequence[float]]) -> Spread:
    """The residual of a one-way analysis of variance over the seeds of every arm of a regime."""
    groups = [np.asarray(values, float) for values in arms if len(values) > 1]
    freedom = sum(len(values) - 1 for values in groups)
    if not freedom:
        return Spread(inf, 0)
    return Spread(sqrt(sum(((values - values.mean()) ** 2).sum() for values in groups) / freedom), freedom)


def contrast(
    samples: Mapping[str, Sequence[float]],
    weights: Mapping[str, float],
    spread: Spread,
    direction: Literal["greater", "less", "absent"],
    margin: float,
    seeds: Mapping[str, Sequence[int]],
) -> Grade:
    """Grade Σ weight · mean at the last look that all arms have the seeds for.

    *held*: the interval lies beyond 0 in the paper's direction; *contradicted*: beyond 0 in the other; *absent*: within
    ±``margin`` by two one-sided tests; *undecided* otherwise. A claim of no difference is held by *absent*, and
    contradicted by an interval outside of ±``margin``.

    Args:
        samples: values by arm, those of later seeds last.
        weights: by arm.
        spread: see :func:`pooled`.
        direction: of the paper's effect.
        margin: δ, the smallest difference worth naming.
        seeds: number of seeds of each arm at each look.
    """
    looks = len(next(iter(seeds.values())))
    done = [look for look in range(looks) if all(len(samples[arm]) >= seeds[arm][look] for arm in weights)]
    if not done or not spread.freedom:
        return Grade("not run")
    look = done[-1]
    counts = {arm: seeds[arm][look] for arm in weights}
    estimate = sum(weight * float(np.mean(samples[arm][: counts[arm]])) for arm, weight in weights.items())
    interval, narrow = _interval(estimate, weights, counts, spread, looks)
    verdict = _verdict(interval, narrow, direction, margin)
    decides = 0
    for later in range(look + 1, looks) if verdict == "undecided" else ():
        grown = {arm: seeds[arm][later] for arm in weights}
        more = Spread(spread.value, spread.freedom + sum(grown.values()) - sum(counts.values()))
        if _verdict(*_interval(estimate, weights, grown, more, looks), direction, margin) != "undecided":
            decides = later
            break
    return Grade(verdict, interval, tuple(counts.values()), decides)


def every(values: Sequence[float], direction: Literal["greater", "less", "absent"], threshold: float) -> Grade:
    """Grade by the range of the values: held if it lies beyond ``threshold`` (within ± it), contradicted if outside.

    Args:
        values: one for each network, pair of networks or round.
        direction: of the paper's effect; ``absent`` asks for values within ±``threshold``.
        threshold: as the claim says.
    """
    low, high = min(values), max(values)
    held, contradicted = {
        "greater": (low > threshold, high <= threshold),
        "less": (high < threshold, low >= threshold),
        "absent": (-threshold < low and high < threshold, low >= threshold or high <= -threshold),
    }[direction]
    verdict: Verdict = "held" if held else "contradicted" if contradicted else "undecided"
    return Grade(verdict, Interval(float(np.median(values)), low, high))


def _interval(
    estimate: float, weights: Mapping[str, float], counts: Mapping[str, int], spread: Spread, looks: int
) -> tuple[Interval, Interval]:
    """Two-sided at α of a look; and the narrower one that two one-sided tests at that α come to."""
    error = spread.value * sqrt(sum(weight**2 / counts[arm] for arm, weight in weights.items()))
    two_sided, one_sided = (error * _quantile(1 - ALPHA / looks / sides, spread.freedom) for sides in (2, 1))
    return (
        Interval(estimate, estimate - two_sided, estimate + two_sided),
        Interval(estimate, estimate - one_sided, estimate + one_sided),
    )


@cache
def _quantile(level: float, freedom: int) -> float:
    """Of Student's t."""
    return float(student.ppf(level, freedom))


def _verdict(
    interval: Interval, narrow: Interval, direction: Literal["greater", "less", "absent"], margin: float
) -> Verdict:
    equivalent = -margin < narrow.low and narrow.high < margin
    if direction == "absent":
        outside = interval.low > margin or interval.high < -margin
        return "held" if equivalent else "contradicted" if outside else "undecided"
    if interval.low > 0 or interval.high < 0:
        return "held" if (interval.estimate > 0) == (direction == "greater") else "contradicted"
    return "absent" if equivalent else "undecided"
