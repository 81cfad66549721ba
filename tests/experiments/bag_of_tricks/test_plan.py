"""Plackett–Burman plans and what is estimated from them, against effects that are known."""

from itertools import combinations

import numpy as np
import pytest

from experiments.bag_of_tricks.plan import effects, effects_of_two, plackett_burman, two_by_two

FACTORS = tuple("abcdefghijk")
TRUE = {factor: 0.5 * number - 2 for number, factor in enumerate(FACTORS)}


def matrix(plan, factors=FACTORS):
    return np.array([[1 if factor in on else -1 for factor in factors] for on in plan.values()])


def measured(plan, value, seeds=2):
    return {arm: [value(on) for _ in range(seeds)] for arm, on in plan.items()}


@pytest.mark.parametrize(("fold_over", "runs"), [(False, 12), (True, 24)])
def test_columns_are_balanced_and_orthogonal(fold_over, runs):
    plan = plackett_burman(FACTORS, fold_over)
    columns = matrix(plan)
    assert list(plan) == [f"pb{number:02}" for number in range(1, runs + 1)]
    assert len(set(plan.values())) == runs
    assert np.array_equal(columns.T @ columns, runs * np.eye(11, dtype=int))
    assert not columns.sum(0).any()


def test_fold_over_frees_main_effects_of_interactions():
    columns = matrix(plackett_burman(FACTORS, fold_over=True))
    products = np.column_stack([columns[:, i] * columns[:, j] for i, j in combinations(range(11), 2)])
    assert not (columns.T @ products).any()
    assert (matrix(plackett_burman(FACTORS)).T @ products[:12]).any()


@pytest.mark.parametrize("fold_over", [False, True])
@pytest.mark.parametrize("count", [4, 11])
def test_additive_effects_are_found_exactly(fold_over, count):
    factors = FACTORS[:count]
    plan = plackett_burman(factors, fold_over)
    values = measured(plan, lambda on: 70 + sum(TRUE[factor] for factor in on))
    for factor, effect in effects(plan, values, factors).items():
        assert effect == pytest.approx((TRUE[factor],) * 3, abs=1e-9)


def test_a_given_spread_gives_the_half_width_that_a_plan_promises():
    for fold_over, promised in ((False, 1.22), (True, 0.865)):
        plan = plackett_burman(FACTORS, fold_over)
        for effect in effects(plan, measured(plan, len, 1), FACTORS, spread=(1.0, 16)).values():
            assert effect.estimate == pytest.approx(1)
            assert effect.high - effect.estimate == pytest.approx(promised, abs=0.005)
            assert effect.estimate - effect.low == pytest.approx(promised, abs=0.005)


@pytest.mark.parametrize(("seeds", "spread"), [(2, None), (1, (0.7, 10**6))])
def test_intervals_hold_the_truth_as_often_as_they_promise(seeds, spread):
    generator, plan, held = np.random.default_rng(0), plackett_burman(FACTORS), []
    for _ in range(400):
        values = measured(plan, lambda on: sum(TRUE[factor] for factor in on) + generator.normal(scale=0.7), seeds)
        found = effects(plan, values, FACTORS, spread)
        held += [effect.low <= TRUE[factor] <= effect.high for factor, effect in found.items()]
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
        (None, FACTORS, "seeds, or the spread"),
        (None, ("a", "nobody"), "tell the factors apart"),
    ],
)
def test_what_a_plan_does_not_decide_is_named(values, factors, named):
    plan = plackett_burman(FACTORS)
    with pytest.raises(ValueError, match=named):
        effects(plan, values or measured(plan, len, 1), factors)
    with pytest.raises(ValueError, match="at most 11"):
        plackett_burman([*FACTORS, "l"])
