from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.splits import split, stratified_order

LABELS = torch.randint(0, 7, (1003,), generator=torch.Generator().manual_seed(0)).clamp(max=5)


def test_order_is_a_permutation_and_the_same_every_time():
    order = stratified_order(LABELS)
    assert torch.equal(order.sort().values, torch.arange(len(LABELS)))
    assert torch.equal(order, stratified_order(LABELS.clone()))


@pytest.mark.parametrize("size", [1, 6, 50, 100, 500, 1003])
def test_a_prefix_holds_the_classes_in_their_proportions(size):
    counts = LABELS[stratified_order(LABELS)[:size]].bincount(minlength=6)
    expected = LABELS.bincount() * size / len(LABELS)
    assert counts.sum() == size
    assert (counts - expected).abs().max() <= 1


def test_classes_of_equal_size_are_split_evenly():
    labels = torch.arange(10).repeat(50)
    train, val = split(labels, val_fraction=0.1, train_fraction=0.2)
    assert labels[train].bincount().tolist() == [9] * 10
    assert labels[val].bincount().tolist() == [5] * 10


def test_smaller_training_parts_are_nested_and_leave_validation_alone():
    parts = [split(LABELS, 0.1, fraction) for fraction in (0.1, 0.2, 0.5, 1.0)]
    for (small, val), (large, same_val) in pairwise(parts):
        assert torch.equal(val, same_val)
        assert 0 < len(small) < len(large)
        assert set(small.tolist()) < set(large.tolist())
    train, val = parts[-1]
    assert torch.equal(torch.cat((train, val)).sort().values, torch.arange(len(LABELS)))
    assert len(val) == 100


def test_images_are_chosen_at_random_within_a_class():
    train, _ = split(torch.zeros(1000, dtype=torch.long), 0.0, train_size=100)
    assert 400 < train.float().mean() < 600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"val_fraction": 0.1, "train_fraction": 0.0}, "train_fraction is 0.0"),
        ({"val_fraction": 0.1, "train_size": 904}, "904 training images .* 903 remain"),
        ({"val_fraction": 0.1, "train_size": 0}, "0 training images"),
    ],
)
def test_impossible_splits_are_refused(settings, message):
    with pytest.raises(MisconfigurationException, match=message):
        split(LABELS, **settings)
