"""Plackett–Burman plans and what is estimated from them, against effects that are known."""

import numpy as np
import pytest

from experiments.bag_of_tricks.plan import effects, effects_of_two, plackett_burman, two_by_two

FACTORS = tuple("abcdefghijk")
TRUE = {factor: 0.5 * number - 2 for number, factor in enumerate(FACTORS)}


def matrix(plan, factors=FACTORS):
    return np.array([[1 if factor in on else -1 for factor in factors] for on in plan.values()])


def measured(plan, value, seeds=2):
    return {arm: [value(on) for _ in range(seeds)] for arm, on in plan.items()}


def test_columns_are_balanced_and_orthogonal():
    plan = plackett_burman(FACTORS)
    columns = matrix(plan)
    assert list(plan) == [f"pb{number:02}" for number in range(1, 13)]
    assert len(set(plan.values())) == 12
    assert np.array_equal(columns.T @ columns, 12 * np.eye(11, dtype=int))
    assert not columns.sum(0).any()


@pytest.mark.parametrize("count", [4, 11])
def test_additive_effects_are_found_exactly(count):
    factors = FACTORS[:count]
    plan = plackett_burman(factors)
    values = measured(plan, lambda on: 70 + sum(TRUE[factor] for factor in on))
    for factor, effect in effects(plan, values, factors).items():
        assert effect == pytest.approx((TRUE[factor],) * 3, abs=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_promise():
    generator, plan, held = np.random.default_rng(0), plackett_burman(FACTORS), []
    for _ in range(400):
        values = measured(plan, lambda on: sum(TRUE[factor] for factor in on) + generator.normal(scale=0.7))
        held += [effect.low <= TRUE[factor] <= effect.high for factor, effect in effects(plan, values, FACTORS).items()]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_an_interaction_is_the_difference_of_differences():
    plan = two_by_two("warmup", "batch", always=["scaling"])
    assert {arm: sorted(on) for arm, on in plan.items()} == {
        "neither": ["scaling"],
        "warmup": ["scaling", "warmup"],
        "batch": ["batch", "scaling"],
        "warmup+batch": ["batch", "scaling", "warmup"],
    }
    values = {"neither": [60, 62], "warmup": [61, 63], "batch": [50, 52], "warmup+batch": [58, 60]}
    effects = effects_of_two(plan, values, "warmup", "batch")
    found = effects["warmup × batch"]
    assert found.estimate == pytest.approx(7)
    # Standard error 2: four means of two runs, of standard deviation √2; 4 degrees of freedom.
    assert found.high - found.estimate == pytest.approx(2.7764 * 2, abs=1e-3)
    assert effects["warmup"].estimate == pytest.approx(4.5)


def test_an_interaction_is_no_noise_of_the_main_effects():
    plan = two_by_two("warmup", "batch")
    values = {"neither": [0.1, -0.1], "warmup": [0.1, -0.1], "batch": [0.1, -0.1], "warmup+batch": [8.1, 7.9]}
    for name, estimate in (("warmup", 4), ("batch", 4), ("warmup × batch", 8)):
        found = effects_of_two(plan, values, "warmup", "batch")[name]
        assert found.estimate == pytest.approx(estimate)
        assert found.high - found.estimate < 0.6


@pytest.mark.parametrize(
    ("values", "factors", "named"),
    [
        ({"pb01": [1]}, FACTORS, "pb02"),
        (None, FACTORS, "give more seeds"),
        (None, ("a", "nobody"), "tell the factors apart"),
    ],
)
def test_what_a_plan_does_not_decide_is_named(values, factors, named):
    plan = plackett_burman(FACTORS)
    with pytest.raises(ValueError, match=named):
        effects(plan, values or measured(plan, len, 1), factors)
    with pytest.raises(ValueError, match="at most 11"):
        plackett_burman([*FACTORS, "l"])
