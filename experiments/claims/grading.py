"""The verdict of each claim, from what is stored."""

from __future__ import annotations

from math import log

from experiments.claims.rows import TIMINGS, Ledger
from experiments.claims.sheet import Claim
from experiments.claims.statistics import Grade, Interval, contrast, every, pooled


def grade(claim: Claim, ledger: Ledger) -> Grade:
    """By the rule of the claim; exact claims are computed, not stored, see :mod:`experiments.claims.exact`."""
    arms = {name: ledger.sheet.arms[name] for name in claim.arms}
    if claim.statistic == "contrast":
        samples = {name: ledger.values(claim, arm) for name, arm in arms.items()}
        seeds = {name: [claim.seeds(arm, look) for look in claim.looks] for name, arm in arms.items()}
        spread = pooled(ledger.spread_of(claim))
        return contrast(samples, claim.arms, spread, claim.direction, claim.margin, seeds)
    if claim.statistic == "every":
        values = [value for arm in arms.values() for value in ledger.values(claim, arm)]
        return every(
            values, claim.direction, claim.margin, sum(claim.seeds(arm, claim.looks[0]) for arm in arms.values())
        )
    if claim.statistic in ("ratio", "log_ratio"):
        above, below = (
            [v for name, arm in arms.items() if claim.arms[name] * sign > 0 for v in ledger.values(claim, arm)]
            for sign in (1, -1)
        )
        needed = [
            sum(claim.seeds(arm, claim.looks[0]) for name, arm in arms.items() if claim.arms[name] * sign > 0)
            for sign in (1, -1)
        ]
        if len(above) < needed[0] or len(below) < needed[1]:
            return Grade("not run")
        if claim.statistic == "log_ratio":
            above, below = ([abs(log(value)) for value in side] for side in (above, below))
        pairs = [over / under for over in above for under in below]
        return every(pairs, claim.direction, claim.margin, len(pairs))
    if claim.statistic == "time":
        rows = [row for row in ledger.rows[TIMINGS] if row["claim"] == claim.id]
        if rows:
            row = rows[-1]
            interval = Interval(float(row["value"]), float(row["low"]), float(row["high"]))
            return Grade("held" if row["held"] == "yes" else "contradicted", interval)
    return Grade("not run")
