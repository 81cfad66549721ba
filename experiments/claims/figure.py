"""A forest plot: every difference with its interval, the margin, and the paper's value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.claims.sheet import Claim
from experiments.claims.statistics import Grade
from experiments.figures import REFERENCE, house_style, legend_of_all, save

VERDICTS: dict[str, dict[str, Any]] = {
    "held": {"color": "C0", "marker": "o"},
    "contradicted": {"color": "C1", "marker": "s"},
    "absent": {"color": "C3", "marker": "v"},
    "undecided": {"color": REFERENCE, "marker": "."},
}


DIFFERENCE, ERROR, RATIO, FACTOR, OTHER = UNITS = (
    "difference in points of error",
    "points of error, every network",
    "ratio",
    "ratio, where it is above 5",
    "correlation, share or difference",
)
"""Each has a panel, which is labelled so."""


@house_style()
def forest(claims: Sequence[Claim], grades: Mapping[str, Grade], path: Path) -> None:
    """Draw what has an interval, by unit: differences with δ, and all others with the value that they are held to."""
    drawn = [claim for claim in claims if grades[claim.id].interval is not None]
    by_unit = [([claim for claim in drawn if _unit(claim, grades[claim.id]) == unit], unit) for unit in UNITS]
    panels = [panel for panel in by_unit if panel[0]]
    figure = Figure(figsize=(9, 1.2 + 0.34 * max(len(drawn), 1) + 0.6 * len(panels)))
    if panels:
        heights = [len(shown) + 1 for shown, _ in panels]
        for axes, (shown, label) in zip(
            figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], panels, strict=True
        ):
            _panel(axes, shown, grades, label)
        legend_of_all(figure, columns=6)
    note = (
        "intervals of differences at α = 0.05 over a claim's looks (95% with one, 98.3% with three), otherwise the"
        " range over networks, pairs or rounds"
    )
    save(figure, path, note)


def _unit(claim: Claim, grade: Grade) -> str:
    """Of its number. Large ratios would stretch the axis until the others lie on their thresholds."""
    if claim.statistic == "contrast":
        return DIFFERENCE
    if claim.statistic in ("ratio", "log_ratio") or claim.ours.endswith("of the time"):
        return FACTOR if grade.interval and grade.interval.estimate > 5 else RATIO
    return ERROR if "points" in claim.ours or "%" in claim.ours else OTHER


def _panel(axes: Axes, claims: Sequence[Claim], grades: Mapping[str, Grade], label: str) -> None:
    for row, claim in enumerate(claims):
        grade = grades[claim.id]
        assert grade.interval is not None
        value, low, high = grade.interval
        look = VERDICTS[grade.verdict]
        axes.plot([low, high], [row, row], color=look["color"], marker="", linewidth=2)
        axes.plot(value, row, **look, linestyle="none", markersize=5, label=grade.verdict)
        if claim.effect is not None:
            axes.plot(claim.effect, row, "D", color="black", fillstyle="none", markersize=6, label="the paper's value")
        limits = (
            (-claim.margin, claim.margin)
            if claim.statistic == "contrast" or claim.direction == "absent"
            else (claim.margin,)
        )
        axes.plot(limits, [row] * len(limits), "|", color="0.4", markersize=12, label="margin or threshold")
    axes.set_yticks(range(len(claims)), [f"{claim.id}  {_short(claim.sentence)}" for claim in claims], fontsize=7)
    axes.set_ylim(len(claims) - 0.5, -0.5)
    if any(claim.statistic == "contrast" for claim in claims):
        axes.axvline(0, color="0.8", linewidth=1, zorder=0)
    if label in (RATIO, FACTOR):
        axes.set_xscale("log")
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False, axis="y")


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= 60 else sentence[:58].rsplit(" ", 1)[0] + " …"
