"""Grading against simulation with known truth, and by hand."""

import math

import numpy as np
import pytest
from scipy.stats import t

from experiments.claims import grading
from experiments.claims.rows import TIMINGS, Ledger
from experiments.claims.sheet import read_sheet
from experiments.claims.simulation import simulate
from experiments.claims.statistics import Spread, contrast, every, pooled

PAIR = {"a": 1.0, "b": -1.0}
LOOKS = {"a": [3, 5, 8], "b": [3, 5, 8]}


def test_the_design_keeps_what_it_promises():
    nothing, margin, large = (simulate(effect, claims=600, seed=1) for effect in (0.0, 1.5, 3.0))
    slack = 2.5 * math.sqrt(0.05 * 0.95 / 600)
    assert (nothing["held"] + nothing["contradicted"]) / 600 < 0.05 + slack
    assert nothing["absent"] / 600 > 0.3  # equality is found where it is true
    assert margin["absent"] / 600 < 0.05 + slack
    assert margin["contradicted"] == 0
    assert large["held"] / 600 > 0.8


def test_pooled_spread_is_the_residual_of_an_analysis_of_variance():
    arms = [[1.0, 2.0, 3.0], [10.0, 10.0], [5.0]]
    assert pooled(arms) == Spread(pytest.approx(math.sqrt(2 / 3)), 3)
    assert pooled([[1.0], [2.0]]).freedom == 0


def test_an_interval_by_hand():
    samples = {"a": [3.0, 4.0, 5.0], "b": [1.0, 1.0, 1.0]}
    grade = contrast(samples, PAIR, Spread(1.0, 16), "greater", 0.5, LOOKS)
    half = t.ppf(1 - 0.05 / 3 / 2, 16) * math.sqrt(2 / 3)
    assert grade.verdict == "held"
    assert grade.interval == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert contrast(samples, PAIR, Spread(1.0, 16), "less", 0.5, LOOKS).verdict == "contradicted"


def test_half_widths_are_those_of_the_design():
    """1.73 s, 1.34 s and 1.06 s at 3, 5 and 8 seeds hold for a single look at 5% with 16 degrees of freedom."""
    for seeds, width in ((3, 1.73), (5, 1.34), (8, 1.06)):
        samples = {arm: [0.0] * seeds for arm in PAIR}
        grade = contrast(samples, PAIR, Spread(1.0, 16), "greater", 0.1, {arm: [seeds] for arm in PAIR})
        assert grade.interval.high == pytest.approx(width, abs=0.005)


def test_between_looks_the_last_look_counts():
    samples = {"a": [0.0, 0.1, 0.2, 50.0], "b": [0.0, 0.1, 0.2, 0.0]}
    grade = contrast(samples, PAIR, Spread(0.1, 10), "greater", 0.5, LOOKS)
    assert (grade.verdict, grade.seeds) == ("absent", (3, 3))


@pytest.mark.parametrize(
    ("difference", "direction", "verdict"),
    [
        (0.0, "greater", "absent"),
        (0.0, "absent", "held"),
        (0.9, "absent", "undecided"),
        (5.0, "absent", "contradicted"),
        (-5.0, "absent", "contradicted"),
        (0.6, "greater", "held"),  # a difference that is there counts, even where it is smaller than worth naming
    ],
)
def test_differences_and_equalities(difference, direction, verdict):
    samples = {"a": [difference] * 3, "b": [0.0] * 3}
    assert contrast(samples, PAIR, Spread(0.2, 16), direction, 1.0, LOOKS).verdict == verdict


def test_a_later_look_decides_if_the_estimate_stays():
    """At 3 seeds it is undecided; of the looks that are left, not of all numbers, the first that decides is named."""
    samples = {"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]}

    def grown(look, difference=1.0):
        values = {"a": np.full(look, difference), "b": np.zeros(look)}
        return contrast(values, PAIR, Spread(0.75, 16 + 2 * (look - 3)), "greater", 0.1, LOOKS)

    grade = contrast(samples, PAIR, Spread(0.75, 16), "greater", 0.1, LOOKS)
    assert (grade.verdict, LOOKS["a"][grade.decides]) == ("undecided", 8)
    assert [grown(look).verdict for look in LOOKS["a"]] == ["undecided", "undecided", "held"]
    assert [grown(look, 0.5).decides for look in LOOKS["a"]] == [0, 0, 0]  # none would
    only = {arm: [3] for arm in PAIR}
    assert contrast(samples, PAIR, Spread(2.0, 16), "greater", 0.1, only).decides == 0


def test_too_few_seeds_or_no_spread_is_not_run():
    assert contrast({"a": [1.0, 2.0], "b": [1.0] * 3}, PAIR, Spread(1.0, 3), "less", 1, LOOKS).verdict == "not run"
    assert contrast({"a": [1.0] * 3, "b": [1.0] * 3}, PAIR, pooled([[1.0]]), "less", 1, LOOKS).verdict == "not run"


def test_of_networks_and_rounds_every_one_counts():
    assert every([2.0, 3.0], "greater", 1.0).verdict == "held"
    assert every([2.0, 0.5], "greater", 1.0).verdict == "undecided"
    assert every([0.5, 0.5], "greater", 1.0).verdict == "contradicted"
    assert every([0.5, -0.5], "absent", 1.0).verdict == "held"
    assert every([2.0, 3.0], "absent", 1.0).verdict == "contradicted"
    assert every([2.0, -2.0], "absent", 1.0).verdict == "undecided"  # the median may be anywhere between


@pytest.mark.parametrize(
    ("claim", "rounds", "verdict"),
    [
        ("S9", (-0.04, 0.03, 0.04), "held"),
        ("S9", (-0.30, 0.03, 0.25), "undecided"),
        ("S9", (0.06, 0.10, 0.25), "contradicted"),
        ("S12", (0.72, 1.02, 1.12), "undecided"),
        ("S12", (0.98, 1.02, 1.12), "held"),
        ("G3t", (0.44, 0.70, 0.72), "undecided"),
        ("G3t", (0.51, 0.70, 0.72), "contradicted"),
    ],
)
def test_times_are_graded_by_their_range(claim, rounds, verdict):
    ledger = Ledger(read_sheet())
    row = dict(zip(("low", "value", "high"), map(str, rounds), strict=True))
    ledger.rows[TIMINGS] = [{"claim": claim, "low": "9", "value": "9", "high": "9"}, {"claim": claim, **row}]
    grade = grading.grade(ledger.sheet.claims[claim], ledger)
    assert (grade.verdict, grade.interval.estimate) == (verdict, rounds[1])


def test_weights_count_by_their_squares():
    weights = {"a": 0.5, "b": 0.5, "c": -1.0}
    samples = {arm: [0.0] * 3 for arm in weights}
    grade = contrast(samples, weights, Spread(1.0, 16), "greater", 0.5, {arm: [3] for arm in weights})
    assert grade.interval.high == pytest.approx(t.ppf(0.975, 16) * math.sqrt((0.25 + 0.25 + 1) / 3))
