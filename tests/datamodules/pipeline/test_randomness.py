from __future__ import annotations

import numpy as np
import torch

from datamodules.pipeline.randomness import Stream, generator, splitmix64, uniforms


def test_splitmix64_gives_the_published_sequence():
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + golden * np.arange(1, 6, dtype=np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(states).tolist() == expected


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
