"""Learning rate factors against their closed forms."""

import math

import pytest

from lit_models.tasks.schedules import cosine, polynomial, steps_down, warmed_up


def test_cosine_with_warm_up_is_the_closed_form():
    warmup, total = 7, 50
    factor = warmed_up(cosine(total - warmup), warmup)
    for i in range(1, warmup + 1):
        assert factor(i - 1) == pytest.approx(i / warmup, abs=1e-15)
    for t in range(total - warmup):
        assert factor(warmup + t) == pytest.approx(0.5 * (1 + math.cos(math.pi * t / (total - warmup))), abs=1e-15)


def test_cosine_ends_at_its_floor_and_stays():
    factor = cosine(10, floor=0.01)
    assert factor(0) == 1
    assert factor(10) == factor(15) == pytest.approx(0.01)


def test_steps_fall_at_their_milestones():
    factor = steps_down([4, 6])
    assert [round(factor(step), 6) for step in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]


def test_no_warm_up_leaves_the_decay_alone():
    assert warmed_up(cosine(5), 0)(0) == 1


def test_a_polynomial_is_its_closed_form_and_ends_at_its_floor():
    factor = polynomial(10, floor=0.01)
    for step in range(11):
        assert factor(step) == pytest.approx(0.01 + 0.99 * (1 - step / 10) ** 0.9, abs=1e-15)
    assert factor(15) == factor(10)
