from __future__ import annotations

import numpy as np
import torch

from datamodules.pipeline.randomness import Stream, generator, normals, splitmix64, uniforms


def test_splitmix64_gives_the_published_sequence():
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = torch.from_numpy((np.uint64(1234567) + golden * np.arange(1, 6, dtype=np.uint64)).view(np.int64))
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(states).numpy().view(np.uint64).tolist() == expected


def test_a_draw_depends_on_its_own_counters_alone():
    everyone = uniforms(3, 5, torch.arange(1000), 7)
    some = torch.tensor([999, 3, 500])
    assert torch.equal(uniforms(3, 5, some, 7), everyone[some])
    assert torch.equal(uniforms(3, 5, some, 4), everyone[some, :4])


def test_every_counter_matters():
    indices = torch.arange(2000)
    base = uniforms(0, 0, indices, 3).flatten()
    neighbours = [uniforms(1, 0, indices, 3), uniforms(0, 1, indices, 3), uniforms(0, 0, indices + 1, 3)]
    for other in neighbours:
        correlation = torch.corrcoef(torch.stack((base, other.flatten())))[0, 1]
        assert abs(correlation) < 0.05
        assert not torch.equal(base, other.flatten())


def test_draws_are_uniform_and_independent():
    draws = uniforms(0, 0, torch.arange(50_000), 4)
    assert 0 <= draws.min() < draws.max() < 1
    for column in draws.T:
        counts = torch.histc(column, 20, 0, 1)
        chi_square = ((counts - 2500).square() / 2500).sum()
        assert chi_square < 43.8  # 99.9 % of chi-square with 19 degrees of freedom
    correlations = torch.corrcoef(draws.T) - torch.eye(4)
    assert correlations.abs().max() < 0.02


def test_purposes_share_no_random_numbers():
    assert generator(Stream.ORDER, 0, 0).random() != generator(Stream.MIX, 0, 0).random()
    assert generator(Stream.MIX, 0, 1, 2, 3).random() == generator(Stream.MIX, 0, 1, 2, 3).random()
    assert generator(Stream.MIX, 0, 1, 2, 3).random() != generator(Stream.MIX, 0, 1, 2, 4).random()


def test_normal_numbers_are_those_of_box_and_muller():
    """The formulas once more, in NumPy's unsigned numbers and float64."""
    keys = torch.tensor([0.25, 0.75])
    ours = normals(keys, 5)

    def mixed(z):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    for key, row in zip((1 << 22, 3 << 22), ours, strict=True):
        start = mixed(np.array([key], dtype=np.uint64))
        bits = mixed(start + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 4, dtype=np.uint64))
        radius = np.sqrt(-2 * np.log(1 - (bits >> np.uint64(40)).astype(np.float64) / 2**24))
        angle = 2 * np.pi * (bits & np.uint64(2**24 - 1)).astype(np.float64) / 2**24
        expected = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:5]
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_normal_numbers_are_normal_and_independent():
    numbers = normals(torch.rand(200, generator=torch.Generator().manual_seed(0)), 5001).double()
    count = numbers.numel()
    assert abs(numbers.mean()) < 5 / count**0.5
    assert abs(numbers.var() - 1) < 5 * (2 / count) ** 0.5
    below = torch.special.ndtr(numbers.flatten().sort().values)
    assert (below - torch.arange(count) / count).abs().max() < 1.95 / count**0.5  # Kolmogorov-Smirnov, 99.9 %
    for a, b in (
        (numbers[1:], numbers[:-1]),
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[:, 2501:], numbers[:, :2500]),
    ):
        assert abs((a * b).mean()) < 5 / a.numel() ** 0.5
