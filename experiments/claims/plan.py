"""Which training comes next: the cheapest claim first, and the price of a network divided by the claims it serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from experiments.claims.grading import grade
from experiments.claims.rows import Ledger
from experiments.claims.sheet import Arm, Claim

TRAINED = ("contrast", "every", "ratio", "log_ratio")


class Training(NamedTuple):
    """An arm with a seed."""

    arm: str
    seed: int


def missing(claim: Claim, ledger: Ledger) -> list[Training]:
    """The trainings up to the claim's next look, the cheapest first; none where it is decided or out of looks."""
    if claim.statistic not in TRAINED:
        return []
    arms = [ledger.sheet.arms[name] for name in claim.arms]
    for look in claim.looks:
        lacking = [training for arm in arms for training in _lacking(arm, claim.seeds(arm, look), ledger)]
        if lacking:
            return sorted(lacking, key=lambda training: (ledger.sheet.arms[training.arm].minutes, training.seed))
        if claim.statistic != "contrast" or grade(claim, ledger).verdict != "undecided":
            return []
    return []


def _lacking(arm: Arm, seeds: int, ledger: Ledger) -> list[Training]:
    there = {int(row["seed"]) for row in ledger.trainings(arm)}
    taught = [Training(arm.teacher, 0)] if arm.teacher and not ledger.trainings(ledger.sheet.arms[arm.teacher]) else []
    return [*taught, *(Training(arm.id, seed) for seed in range(seeds) if seed not in there)]


def minutes(trainings: Sequence[Training], ledger: Ledger) -> float:
    """Price on two quiet cores."""
    return sum(ledger.sheet.arms[training.arm].minutes for training in trainings)


def next_training(claims: Sequence[Claim], ledger: Ledger, taken: Collection[Training]) -> Training | None:
    """What to train next that nobody has ``taken``; ``None`` if nothing is left."""
    wanted = {claim.id: missing(claim, ledger) for claim in claims}
    sharing = Counter(training for trainings in wanted.values() for training in set(trainings))

    def price(trainings: Sequence[Training]) -> float:
        return sum(ledger.sheet.arms[training.arm].minutes / sharing[training] for training in trainings)

    for trainings in sorted(wanted.values(), key=price):
        for training in trainings:
            teacher = ledger.sheet.arms[training.arm].teacher
            if training not in taken and (teacher is None or ledger.trainings(ledger.sheet.arms[teacher])):
                return training
    return None
