from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from datamodules import Digits
from datamodules.pipeline.image_data import RawBatch
from datamodules.pipeline.mixing import cutmix, cutmix_box, draw_mixing, mix, mixup
from datamodules.pipeline.randomness import Stream, generator

IMAGES = torch.rand(16, 3, 8, 10, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 5
PARTNER = torch.from_numpy(np.random.default_rng(0).permutation(16))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_mixup_is_its_formula(weight):
    soft = one_hot(TARGETS, 5).float()
    images, targets = mixup(IMAGES.clone(), soft, PARTNER, weight)
    for result, given in ((images, IMAGES), (targets, soft)):
        expected = weight * given.double() + (1 - weight) * given.double()[PARTNER]
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.99])
def test_cutmix_pastes_the_box_and_weighs_by_area(weight):
    box = cutmix_box(8, 10, weight, 0.4, 0.9)
    top, bottom, left, right = box
    images, targets = cutmix(IMAGES.clone(), one_hot(TARGETS, 5).float(), PARTNER, box)
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert torch.equal(images, torch.where(inside, IMAGES[PARTNER], IMAGES))
    share = inside.double().mean()
    expected = (1 - share) * one_hot(TARGETS, 5).double() + share * one_hot(TARGETS[PARTNER], 5).double()
    torch.testing.assert_close(targets.double(), expected, rtol=0, atol=1e-7)


def test_cutmix_box_has_the_wanted_area_away_from_the_border():
    for weight in np.linspace(0, 1, 11):
        top, bottom, left, right = cutmix_box(200, 300, weight, 0.5, 0.5)
        assert abs((bottom - top) * (right - left) / (200 * 300) - (1 - weight)) < 0.02


def _mixed(number: int, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0):
    rng = generator(Stream.MIX, 0, 0, number, 0)
    return mix(IMAGES.clone(), TARGETS, 5, draw_mixing(len(IMAGES), rng, mixup_alpha, cutmix_alpha))


def test_soft_targets_add_up_and_are_reproducible():
    images, targets = _mixed(3, mixup_alpha=0.4)
    again, _ = _mixed(3, mixup_alpha=0.4)
    other, _ = _mixed(4, mixup_alpha=0.4)
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    assert torch.equal(images, again)
    assert not torch.equal(images, other)


def test_probability_of_mixing_and_of_each_kind(monkeypatch):
    data = Digits(shift=0, flip=False, mixup_alpha=1.0, cutmix_alpha=1.0, mix_prob=0.75)
    monkeypatch.setattr(Digits, "augment_and_normalise", lambda self, batch: IMAGES.clone())
    kinds = []
    for number in range(400):
        mixed = []
        for rank in (0, 1):
            monkeypatch.setattr(Digits, "_shard", (rank, 2))
            mixed.append(data.on_after_batch_transfer(RawBatch(IMAGES, TARGETS, None, 0, number), 0))
        (images, targets), (_, other_targets) = mixed
        assert targets.ndim == other_targets.ndim  # all ranks mix, or none
        if targets.ndim == 1:
            assert torch.equal(images, IMAGES)
            assert torch.equal(targets, TARGETS)
            kinds.append("none")
        else:
            assert not torch.equal(targets, other_targets)
            # CutMix leaves each pixel as it was in one of the two images.
            given = torch.isin(images, IMAGES)
            kinds.append("cutmix" if given.all() else "mixup")
    assert abs(kinds.count("none") / 400 - 0.25) < 0.08
    assert abs(kinds.count("mixup") / 400 - 0.375) < 0.08


def test_weights_follow_beta():
    # At the image that is its own class alone, the largest soft target is max(λ, 1 - λ).
    weights = [float(_mixed(number, mixup_alpha=0.2)[1].max(1).values.min()) for number in range(300)]
    folded = np.random.default_rng(0).beta(0.2, 0.2, 100_000)
    assert abs(np.mean(weights) - np.mean(np.maximum(folded, 1 - folded))) < 0.03


def test_all_ranks_mix_a_batch_or_none(monkeypatch):
    drawn = []
    for rank in range(2):
        monkeypatch.setattr(Digits, "_shard", (rank, 2))
        data = Digits(mixup_alpha=1.0, mix_prob=0.5)
        drawn.append([data._draw_mixing(0, number, 4) for number in range(40)])
    assert {(a is None, b is None) for a, b in zip(*drawn, strict=True)} == {(True, True), (False, False)}
