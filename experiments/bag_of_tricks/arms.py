"""The runs of a plan as arms of a sheet, so that they are trained, found again and stored as those of the claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.bag_of_tricks.tricks import PLANS, TEACHER, configs
from experiments.claims.sheet import Arm, Claim, Regime, Sheet

TEACHES = "teacher"
QUANTITY = "val_error"


def sheet_of(plan: str, seeds: int, flags: Sequence[str], root: Path) -> Sheet:
    """One claim, of the name of the plan, which wants each of its arms with the first ``seeds`` seeds.

    Args:
        plan: one of ``PLANS``.
        seeds: of each arm.
        flags: of ``fathom fit``, for all arms alike.
        root: the folder in which the rows are stored, in one of the name of the plan.
    """
    regime = Regime(id=plan, title=plan, scale="", epochs=1, images=1)

    def arm(name: str, files: Iterable[Path], teacher: str | None = None) -> Arm:
        words = [word for path in files for word in ("--config", str(path))]
        if teacher:
            words += ["--model.teacher", f"{teacher}.ckpt"]  # a required setting: its value follows once it is known
        return Arm(id=name, paper=plan, regime=regime, seconds=1, words=(*words, *flags), teacher=teacher)

    tricks = PLANS[plan]
    arms = {name: arm(name, configs(on), TEACHES if "distillation" in on else None) for name, on in tricks.items()}
    if any(one.teacher for one in arms.values()):
        arms[TEACHES] = arm(TEACHES, TEACHER)
    claim = Claim(
        id=plan,
        paper=plan,
        sentence="",
        papers_value="",
        source="",
        regime=regime,
        statistic="every",
        quantity=QUANTITY,
        arms=dict.fromkeys(tricks, 1),
        looks=(seeds,),
    )
    return Sheet({plan: regime}, arms, {plan: claim}, {plan: plan}, {}, root)
