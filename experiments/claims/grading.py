"""The verdict of each claim, from what is stored."""

from __future__ import annotations

from math import log

from experiments.claims.rows import Ledger
from experiments.claims.sheet import Claim
from experiments.claims.statistics import Grade, contrast, every, pooled


def grade(claim: Claim, ledger: Ledger) -> Grade:
    """By the rule of the claim; exact claims are computed, not stored, see :mod:`experiments.claims.exact`."""
    if claim.statistic == "time":
        if not (row := ledger.timing(claim)):
            return Grade("not run")
        return every([float(row[name]) for name in ("low", "value", "high")], claim.direction, claim.margin)
    arms = {name: ledger.sheet.arms[name] for name in claim.arms}
    samples = {name: ledger.values(claim, arm) for name, arm in arms.items()}
    if claim.statistic == "contrast":
        seeds = {name: [claim.seeds(arm, look) for look in claim.looks] for name, arm in arms.items()}
        spread = pooled(ledger.spread_of(claim))
        return contrast(samples, claim.arms, spread, claim.direction, claim.margin, seeds)
    needed = {name: claim.seeds(arm, claim.looks[0]) for name, arm in arms.items()}
    if not arms or any(len(samples[name]) < needed[name] for name in arms):
        return Grade("not run")
    values = [value for sample in samples.values() for value in sample]
    if claim.statistic in ("ratio", "log_ratio"):
        above, below = (
            [value for name, sample in samples.items() if claim.arms[name] * sign > 0 for value in sample]
            for sign in (1, -1)
        )
        if claim.statistic == "log_ratio":
            above, below = ([abs(log(value)) for value in side] for side in (above, below))
        values = [over / under for over in above for under in below]
    counted = tuple(len(sample) for sample in samples.values())
    return every(values, claim.direction, claim.margin)._replace(seeds=counted)
