"""Average precision against a published example, the loop of the VOC development kit, and pycocotools."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from lit_models.errors import NetworkError
from lit_models.tasks.average_precision import COCOAveragePrecision, VOCAveragePrecision

sys.path.insert(0, str(Path(__file__).parent))
from score_worker import CLASSES, ORIGINAL, batch, polygon

# Seven images of rafaelpadilla/Object-Detection-Metrics: objects x, y, width, height; detections with a score first.
OBJECTS = [
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(28, 31, 55, 63), (58, 67, 50, 58)],
]
DETECTIONS = [
    [(0.88, 5, 67, 31, 48), (0.70, 119, 111, 40, 67), (0.80, 124, 9, 49, 67)],
    [(0.71, 64, 111, 64, 58), (0.54, 26, 140, 60, 47), (0.74, 19, 18, 43, 35)],
    [
        (0.18, 109, 15, 77, 39),
        (0.67, 86, 63, 46, 45),
        (0.38, 160, 62, 36, 53),
        (0.91, 105, 131, 47, 47),
        (0.44, 18, 148, 40, 44),
    ],
    [(0.35, 83, 28, 28, 26), (0.78, 28, 68, 42, 67), (0.45, 87, 89, 25, 39), (0.14, 10, 155, 60, 26)],
    [(0.62, 50, 38, 28, 46), (0.44, 95, 11, 53, 28), (0.95, 29, 131, 72, 29), (0.23, 29, 163, 72, 29)],
    [(0.45, 43, 48, 74, 38), (0.84, 17, 155, 29, 35), (0.43, 95, 110, 25, 42)],
    [(0.48, 16, 20, 101, 88), (0.95, 33, 116, 37, 49)],
]


def corners(boxes):
    """Half-open; that project counts the pixels at x + width and y + height to the box."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:] + 1), 1)


@pytest.mark.parametrize(("interpolation", "percent"), [("11-point", 26.84), ("area", 24.56)])
def test_the_published_example(interpolation, percent):
    metric = VOCAveragePrecision(1, interpolation, iou_threshold=0.3)
    for number, (objects, found) in enumerate(zip(OBJECTS, DETECTIONS, strict=True)):
        none = torch.zeros(len(objects), dtype=torch.int64)
        targets = {"boxes": corners(objects), "labels": none, "difficult": none.bool()}
        detections = {
            "boxes": corners([box for _, *box in found]),
            "scores": tensor([score for score, *_ in found]),
            "labels": torch.zeros(len(found), dtype=torch.int64),
        }
        metric.update([detections], targets | {"counts": [len(objects)], "ids": [number]})
    scores = metric.compute()
    assert 100 * scores["map"] == pytest.approx(percent, abs=0.01)  # 26.84 rounded, 24.56 cut off
    assert scores["ap"] == scores["map"]


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def devkit(images, label, threshold, points):
    """VOCevaldet.m, written out: one class, detections of all images in one list."""
    detections, objects, positives = [], [], 0
    for number, (found, truth) in enumerate(images):
        of_class = (truth["labels"] == label).nonzero()[:, 0].tolist()
        objects.append([[truth["boxes"][i].tolist(), bool(truth["difficult"][i]), False] for i in of_class])
        positives += sum(not difficult for _, difficult, _ in objects[-1])
        for box, score, its in zip(*(found[key].tolist() for key in ("boxes", "scores", "labels")), strict=True):
            if its == label:
                detections.append((score, number, box))
    if not positives:
        return float("nan")
    right, wrong, recall, precision = 0, 0, [], []
    for _, number, box in sorted(detections, key=lambda detection: -detection[0]):
        best, most = None, -1.0
        for candidate in objects[number]:
            other = candidate[0]
            width = min(box[2], other[2]) - max(box[0], other[0])
            height = min(box[3], other[3]) - max(box[1], other[1])
            if width > 0 and height > 0:
                shared = width * height
                overlap = shared / (area(box) + area(other) - shared)
                if overlap > most:
                    best, most = candidate, overlap
        if most >= threshold:
            if best[1]:
                continue
            if best[2]:
                wrong += 1
            else:
                best[2] = True
                right += 1
        else:
            wrong += 1
        recall.append((right, positives))
        precision.append(right / (right + wrong))
    if points:
        total = 0.0
        for k in range(11):
            total += max([p for (r, n), p in zip(recall, precision, strict=True) if 10 * r >= k * n], default=0.0)
        return total / 11
    total, before = 0.0, 0.0
    for i, (r, n) in enumerate(recall):
        total += (r / n - before) * max(precision[i:])
        before = r / n
    return total


@pytest.mark.parametrize("interpolation", ["11-point", "area"])
@pytest.mark.parametrize("first", [0, 100, 200, 300])
def test_random_sets_with_ties_difficult_objects_and_empty_images(first, interpolation):
    numbers = range(first, first + 25)
    metric = VOCAveragePrecision(CLASSES + 1, interpolation)  # of one class there is nothing
    images = []
    for start in range(0, 25, 6):
        detections, targets, _, _ = batch(numbers[start : start + 6], name=int)
        metric.update(detections, targets)
        starts = np.cumsum([0, *targets["counts"]])
        for found, i, j in zip(detections, starts[:-1], starts[1:], strict=True):
            images.append((found, {key: targets[key][i:j] for key in ("boxes", "labels", "difficult")}))
    assert any(not len(truth["boxes"]) for _, truth in images)
    assert any(truth["difficult"].any() for _, truth in images)
    expected = [devkit(images, label, 0.5, interpolation == "11-point") for label in range(CLASSES + 1)]
    scores = metric.compute()
    assert 0.05 < scores["map"] < 0.95
    np.testing.assert_allclose(scores["ap"], expected, rtol=0, atol=1e-12)
    assert scores["map"] == pytest.approx(np.mean(expected[:CLASSES]), abs=1e-12)


def test_the_order_of_the_images_changes_nothing():
    scores = []
    for numbers in (range(12), reversed(range(12))):
        metric = VOCAveragePrecision(CLASSES)
        for number in numbers:
            detections, targets, _, _ = batch([number])
            metric.update(detections, targets)
        scores.append(metric.compute()["ap"].tolist())
    assert scores[0] == scores[1]


def test_nothing_at_all_scores_nan():
    with pytest.warns(UserWarning, match="before the"):
        assert VOCAveragePrecision(2).compute()["map"].isnan()


def test_objects_that_are_not_found_score_nothing():
    metric = VOCAveragePrecision(2)
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    truth = {"boxes": tensor([[0.0, 0, 5, 5]]), "labels": tensor([1]), "difficult": tensor([False])}
    metric.update([nothing, nothing], truth | {"counts": [0, 1], "ids": ["a", "b"]})
    assert metric.compute()["map"] == 0
    metric.reset()
    metric.update([nothing], {**truth, "difficult": tensor([True]), "counts": [1], "ids": ["a"]})
    assert metric.compute()["map"].isnan()


def test_coco_equals_pycocotools_on_files_of_its_own(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, of the extra detection, is not installed")
    from pycocotools.cocoeval import COCOeval
    from pycocotools.mask import encode

    metric = COCOAveragePrecision(CLASSES, masks=True)
    truth, found = [], []
    numbers = range(40)
    detections, targets, _, _ = batch(numbers, name=int)
    targets["areas"] = [(32.0**2, 32**2 + 1e-9, 96.0**2, 96**2 + 1e-9)[i % 4] for i in range(sum(targets["counts"]))]
    metric.update(detections, targets)
    starts = np.cumsum([0, *targets["counts"]])
    for number in numbers:
        for i in range(starts[number], starts[number + 1]):
            x1, y1, x2, y2 = (targets["boxes"][i] / 2).tolist()
            outline = [polygon(targets["boxes"][i])]
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": targets["areas"][i], "segmentation": outline}
            crowd = {"iscrowd": int(targets["difficult"][i]), "category_id": int(targets["labels"][i])}
            truth.append({"id": i + 1, "image_id": number, **box, **crowd})
        one = detections[number]
        masks = paste_masks_in_image(one["masks"], one["boxes"].double() / 2, ORIGINAL)
        columns = (one[key].tolist() for key in ("boxes", "scores", "labels"))
        for box, score, label, mask in zip(*columns, masks, strict=True):
            x1, y1, x2, y2 = (side / 2 for side in box)
            result = {"image_id": number, "category_id": label, "score": score}
            result["segmentation"] = encode(np.asfortranarray(mask[0] > 0.5))
            result["segmentation"]["counts"] = result["segmentation"]["counts"].decode()
            found.append(result | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    categories = [{"id": label, "name": str(label)} for label in range(CLASSES)]
    images = [{"id": number, "width": 100, "height": 50} for number in numbers]
    scores = metric.compute()
    for overlap, prefix in (("bbox", ""), ("segm", "mask_")):
        (tmp_path / "truth.json").write_text(
            json.dumps({"images": images, "annotations": truth, "categories": categories, "info": {}})
        )
        results = [{k: v for k, v in one.items() if k != ("bbox" if prefix else "segmentation")} for one in found]
        (tmp_path / "found.json").write_text(json.dumps(results))
        with contextlib.redirect_stdout(io.StringIO()):
            objects = coco.COCO(str(tmp_path / "truth.json"))
            judged = COCOeval(objects, objects.loadRes(str(tmp_path / "found.json")), overlap)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
        ours = [scores[f"{prefix}{name}"].item() for name in names]
        expected = np.where(judged.stats[:6] < 0, np.nan, judged.stats[:6])
        assert 0.05 < ours[0] < ours[1] < 0.95
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
        assert scores[f"{prefix}ap"].mean() == pytest.approx(expected[0], abs=1e-6)
    assert abs(scores["map"] - scores["mask_map"]) > 0.01


@pytest.mark.parametrize("missing", ["run_lengths", "masks"])
def test_masks_that_are_not_there_are_not_scored(missing):
    pytest.importorskip("pycocotools", reason="pycocotools, of the extra detection, is not installed")
    detections, targets, _, _ = batch([0])
    for part in (targets, *detections):
        part.pop(missing, None)
    with pytest.raises(NetworkError, match="coco_masks compares masks"):
        COCOAveragePrecision(CLASSES, masks=True).update(detections, targets)


def test_coco_takes_sets_without_objects_or_detections():
    pytest.importorskip("pycocotools", reason="pycocotools, of the extra detection, is not installed")
    metric = COCOAveragePrecision(2)
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    truth = {"boxes": tensor([[0.0, 0, 5, 5]]), "labels": tensor([1]), "difficult": tensor([False])}
    metric.update([nothing], truth | {"counts": [1], "ids": ["a"]})
    scores = metric.compute()
    assert scores["map"] == scores["map_small"] == scores["ap"][1] == 0
    assert scores["ap"][0].isnan()
    assert scores["map_large"].isnan()
    metric.reset()
    none = {key: value[:0] for key, value in truth.items()}
    metric.update(
        [{"boxes": truth["boxes"], "scores": tensor([0.5]), "labels": tensor([0])}], none | {"counts": [0], "ids": [7]}
    )
    assert metric.compute()["map"].isnan()


def test_without_pycocotools_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.cocoeval", raising=False)
    with pytest.raises(NetworkError) as error:
        COCOAveragePrecision(2)
    assert str(error.value) == (
        "COCO's average precision and its run lengths of masks need pycocotools: pip install 'fathom-depth[detection]'."
    )
