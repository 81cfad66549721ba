"""The numbers of Veit et al. 2016 for n = 54."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from experiments.unravel.path_lengths import (
    contributions,
    distribution,
    effective_range,
    log_counts,
    survivors,
)
from experiments.unravel.path_summary import summarise


def test_lengths_are_binomial():
    shares = distribution(54)
    assert shares == pytest.approx(binom.pmf(range(55), 54, 0.5), rel=1e-12)
    lengths = np.arange(55)
    assert shares @ lengths == pytest.approx(27)
    assert (shares @ (lengths - 27) ** 2) ** 0.5 == pytest.approx(3.674, abs=5e-4)
    assert shares[19:36].sum() == pytest.approx(0.980, abs=5e-4)
    assert shares[20:35].sum() == pytest.approx(0.960, abs=5e-4)
    assert shares[5:18].sum() == pytest.approx(0.004537, abs=5e-7)
    assert distribution(23)[5:18].sum() == pytest.approx(0.993, abs=5e-4)


@pytest.mark.parametrize(
    ("deleted", "effective", "every"), [(1, 69.8, 50), (5, 15.3, 3.1), (10, 1.87, 0.098), (20, 0.012, 1e-4)]
)
def test_paths_that_survive_deletions(deleted, effective, every):
    assert 100 * survivors(54, deleted, range(5, 18)) == pytest.approx(effective, rel=0.05 if deleted == 20 else 4e-3)
    assert 100 * survivors(54, deleted, range(55)) == pytest.approx(every, rel=0.05)
    assert distribution(54, deleted).sum() == pytest.approx(2.0**-deleted)
    assert distribution(54, deleted)[54 - deleted + 1 :].sum() == 0


def test_distribution_after_deletions_counts_what_is_left():
    n, deleted = 7, {1, 4}
    paths = [set(path) for k in range(n + 1) for path in combinations(range(n), k)]
    left = [sum(len(path) == k and not path & deleted for path in paths) / len(paths) for k in range(n + 1)]
    assert distribution(n, len(deleted)) == pytest.approx(left)


def test_contributions_in_log_space():
    assert np.exp(log_counts(54))[27] == pytest.approx(1946939425648112)
    norms = 0.25 ** np.arange(55)
    assert contributions(norms) == pytest.approx(binom.pmf(range(55), 54, 0.2), rel=1e-9)  # C(n,k) p^k q^(n-k)
    assert contributions(norms * 1e-290) == pytest.approx(contributions(norms), rel=1e-6)
    assert contributions(np.array([0.0, 1.0, 1.0])) == pytest.approx([0, 2 / 3, 1 / 3])
    assert len(contributions(np.full(1203, 1.0))) == 1203  # C(1202, 601) is beyond float64


def test_effective_range_is_the_shortest():
    rng = np.random.default_rng(0)
    for _ in range(50):
        shares = rng.random(12) ** 4
        mass = rng.uniform(0.1, 0.99)
        found = effective_range(shares, mass)
        enough = [
            stop - start
            for start in range(12)
            for stop in range(start + 1, 13)
            if shares[start:stop].sum() >= mass * shares.sum() - 1e-9
        ]
        assert len(found) == min(enough)
        assert shares[found.start : found.stop].sum() >= mass * shares.sum() - 1e-9
    assert effective_range(np.array([0, 1.0, 0])) == range(1, 2)
    assert effective_range(np.ones(4), mass=1) == range(4)


def test_effective_range_does_not_depend_on_the_unit():
    shares = np.array([1.0, 2, 5, 2, 1])
    for mass in (0.4, 0.6, 0.95):
        assert (
            effective_range(1e-12 * shares, mass)
            == effective_range(shares, mass)
            == effective_range(1e12 * shares, mass)
        )


def test_quantiles_are_the_tenth_and_the_ninetieth():
    sampled = [{"length": str(k), "norm": str(norm)} for k in (0, 1) for norm in range(11)]
    exact = [{"length": str(k), "blocks": "1", "norm": "1", "cosine": "1", "share": "0.5"} for k in (0, 1)]
    found = summarise(exact, sampled)
    assert [*found.single_norm_p10, *found.single_norm, *found.single_norm_p90] == [1, 1, 5, 5, 9, 9]
