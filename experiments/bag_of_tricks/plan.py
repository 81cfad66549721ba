"""Effects of many switches from few runs: two-level plans (Plackett & Burman 1946) and their least squares.

A ladder compares each rung with the one before, two runs for an effect. In a plan whose columns are orthogonal every
run counts for every effect: with 12 runs of standard deviation s an effect has a standard error of s/√3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t

Plan = dict[str, frozenset[str]]
"""The factors that are on, by name of the arm."""

_FIRST_ROW = (True, True, False, True, True, True, False, False, False, True, False)


class Effect(NamedTuple):
    """What a factor changes on average over the other factors of the plan."""

    estimate: float
    low: float
    """Lower end of the 95% confidence interval."""
    high: float


def plackett_burman(factors: Sequence[str]) -> Plan:
    """The 12 arms ``pb01`` … ``pb12`` for at most eleven factors, each of which is on in six.

    The columns of any two factors are orthogonal, but each main effect is mixed with interactions of two others.

    Raises:
        ValueError: For more than eleven factors, or one named twice.
    """
    if len(factors) > len(_FIRST_ROW) or len(set(factors)) < len(factors):
        raise ValueError(f"a Plackett–Burman plan of 12 runs is for at most 11 different factors, not {list(factors)}")
    rows = [np.roll(_FIRST_ROW, shift) for shift in range(len(_FIRST_ROW))] + [np.zeros(len(_FIRST_ROW), bool)]
    return {
        f"pb{number:02}": frozenset(factor for factor, on in zip(factors, row, strict=False) if on)
        for number, row in enumerate(rows, start=1)
    }


def two_by_two(first: str, second: str, always: Collection[str] = ()) -> Plan:
    """The four arms ``neither``, ``first``, ``second`` and ``first+second``; factors of ``always`` are on in each."""
    combinations = {"neither": (), first: (first,), second: (second,), f"{first}+{second}": (first, second)}
    return {arm: frozenset((*always, *on)) for arm, on in combinations.items()}


def effects(plan: Plan, values: Mapping[str, Sequence[float]], factors: Sequence[str]) -> dict[str, Effect]:
    """The main effect of each factor: the mean where it is on, less the mean where it is off.

    The spread that its interval is from is that of the residuals, which has the interactions in it.

    Args:
        plan: The arms.
        values: What was measured in each arm, once for each seed.
        factors: Those whose effects are estimated; orthogonal columns need not all be among them.

    Raises:
        ValueError: If the runs don't determine the effects, or leave no residuals to estimate the spread from.
    """
    return _fit(plan, values, {factor: _halves(plan, factor) for factor in factors})


def effects_of_two(
    plan: Plan,
    values: Mapping[str, Sequence[float]],
    first: str,
    second: str,
) -> dict[str, Effect]:
    """The main effects, and the effect of ``first`` where ``second`` is on less that where it is off.

    All three are in one model, so that the interaction is no noise; see :func:`effects`.
    """
    columns = {factor: _halves(plan, factor) for factor in (first, second)}
    columns[f"{first} × {second}"] = columns[first] * columns[second]
    return _fit(plan, values, columns)


def _halves(plan: Plan, factor: str) -> np.ndarray:
    """½ where the factor is on and −½ where it is off, so that the coefficient is the effect."""
    return np.array([factor in on for on in plan.values()]) - 0.5


def _fit(plan: Plan, values: Mapping[str, Sequence[float]], columns: Mapping[str, np.ndarray]) -> dict[str, Effect]:
    """Least squares on the columns, one row for each run."""
    if missing := sorted(plan.keys() - values.keys()):
        raise ValueError(f"nothing was measured in the arms {', '.join(missing)} of the plan")
    runs = [len(values[arm]) for arm in plan]
    measured = np.concatenate([np.asarray(values[arm], float) for arm in plan])
    design = np.repeat(np.column_stack([np.ones(len(plan)), *columns.values()]), runs, axis=0)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError("these arms don't tell the factors apart")
    coefficients = np.linalg.lstsq(design, measured, rcond=None)[0]
    freedom = len(measured) - design.shape[1]
    if freedom == 0:
        raise ValueError("the plan leaves no run to estimate the spread from: give more seeds")
    deviation = float(np.sqrt(np.square(measured - design @ coefficients).sum() / freedom))
    errors = deviation * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    half_widths = t.ppf(0.975, freedom) * errors
    return {
        name: Effect(estimate, estimate - half, estimate + half)
        for name, estimate, half in zip(columns, coefficients[1:].tolist(), half_widths[1:].tolist(), strict=True)
    }
