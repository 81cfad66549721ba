"""The eleven tricks as switches, each a YAML file after the baseline's, for plans that turn on any set of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from experiments.bag_of_tricks.plan import Plan, plackett_burman, two_by_two

FOLDER = Path(__file__).parent / "ladder"
BASELINE, UNSCALED = FOLDER / "00_baseline.yaml", FOLDER / "unscaled.yaml"
RUNGS = {path.stem.partition("_")[2]: path for path in sorted(FOLDER.glob("[0-9]*.yaml")) if path.name != BASELINE.name}
"""File of each trick of the ladder, which has the learning rate scaled from its baseline on."""
SCALING = "linear_scaling"
TRICKS = (SCALING, *RUNGS)
TEACHER = [BASELINE, *list(RUNGS.values())[: list(RUNGS).index("distillation")], FOLDER / "teacher.yaml"]
"""Files of the run that teaches wherever ``distillation`` is on, by ``--model.teacher``."""

LADDER: Plan = {path.stem: frozenset(TRICKS[: number + 1]) for number, path in enumerate((BASELINE, *RUNGS.values()))}
"""One trick added at a time (He et al. 2019, tables 4 to 6)."""
PLANS: dict[str, Plan] = {
    "ladder": LADDER,
    "plackett_burman": plackett_burman(TRICKS),
    "warmup_by_batch": two_by_two("warmup", "large_batch", always=[SCALING]),
    # From the last row of table 6 in which neither is on.
    "distillation_by_mixup": two_by_two("distillation", "mixup", always=[SCALING, "cosine", "label_smoothing"]),
}


def configs(on: Collection[str]) -> list[Path]:
    """The files, in order, of the run with these tricks and no other.

    Raises:
        ValueError: For a trick that does not exist.
    """
    if unknown := sorted(set(on) - set(TRICKS)):
        raise ValueError(f"there is no trick {', '.join(unknown)}: they are {', '.join(TRICKS)}")
    return [BASELINE, *([] if SCALING in on else [UNSCALED]), *(path for name, path in RUNGS.items() if name in on)]
