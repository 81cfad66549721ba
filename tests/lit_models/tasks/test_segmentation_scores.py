"""Scores of masks against loops over pixels."""

import pytest
import torch
from torch import tensor

from lit_models.tasks.segmentation_scores import VOID, SegmentationScores


def test_scores_are_those_of_the_whole_set():
    random = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 4, (5, 6, 7), generator=random)
    predictions = torch.where(torch.rand(masks.shape, generator=random) < 0.6, masks, 3 - masks)
    masks[torch.rand(masks.shape, generator=random) < 0.2] = VOID
    metric = SegmentationScores(5)  # one class is nowhere
    for mask, prediction in zip(masks.split(2), predictions.split(2), strict=True):
        metric.update(prediction, mask)
    right, labelled, intersections, unions = 0, 0, [0] * 5, [0] * 5
    for mask, prediction in zip(masks.flatten().tolist(), predictions.flatten().tolist(), strict=True):
        if mask == VOID:
            continue
        labelled += 1
        right += mask == prediction
        for label in range(5):
            intersections[label] += mask == prediction == label
            unions[label] += label in (mask, prediction)
    iou = [i / u if u else 0 for i, u in zip(intersections, unions, strict=True)]
    scores = metric.compute()
    assert unions[4] == 0
    assert scores["pixel_accuracy"] == right / labelled
    assert scores["iou"].tolist() == iou
    assert scores["miou"] == pytest.approx(sum(iou) / 5, abs=1e-15)


def test_what_is_predicted_at_void_pixels_does_not_count():
    metric = SegmentationScores(2)
    metric.update(tensor([[[0, 1, 1]]]), tensor([[[0, VOID, VOID]]], dtype=torch.uint8))
    assert metric.compute()["iou"].tolist() == [1, 0]
    assert metric.compute()["pixel_accuracy"] == 1


def test_a_set_that_is_wholly_void_has_no_accuracy():
    metric = SegmentationScores(2)
    metric.update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), VOID))
    assert metric.compute()["pixel_accuracy"].isnan()
