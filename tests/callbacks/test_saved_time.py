"""The estimate of saved time on steps whose true cost is known."""

import random

import pytest

from callbacks.saved_time import SavedTime


def test_recovers_the_cost_of_the_work_left_out():
    rng = random.Random(0)
    saved, truth = SavedTime(), 0.0
    for _ in range(1600):
        work = rng.uniform(0.5, 1)
        saved.add(work, 0.1 + 0.4 * work + rng.gauss(0, 0.005))
        truth += 0.4 * (1 - work)
    assert saved.seconds() == pytest.approx(truth, rel=0.02)


def test_says_nothing_where_nothing_can_be_told():
    saved = SavedTime()
    assert saved.seconds() is None
    for _ in range(1600):
        saved.add(0.7, random.random())
    assert saved.seconds() is None
