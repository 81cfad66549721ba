"""Average precision of detections: as in Pascal VOC, and as in COCO.

What both metrics keep depends on the images of one rank alone, and is put into an order of its own before anything is
added up. So the score of several ranks, however many images each of them saw, is that of one process bit for bit.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_models.errors import NetworkError, check_choice
from lit_models.instance_masks import pycocotools, run_lengths

Interpolation = Literal["11-point", "area"]
IGNORED, FALSE, TRUE = -1, 0, 1
"""What became of a detection: not counted, a false positive, a true positive."""
_COCO_MEAN, _COCO_50, _COCO_75, _COCO_SMALL, _COCO_MEDIUM, _COCO_LARGE = range(6)


class _RowMetric(Metric):
    """A metric whose states are lists of tensors (rows, columns), of other lengths on other ranks."""

    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self._columns: dict[str, tuple[int, torch.dtype]] = {}

    def _add_rows(self, name: str, columns: int, dtype: torch.dtype) -> None:
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._columns[name] = columns, dtype

    def _append(self, name: str, rows: np.ndarray | Tensor) -> None:
        columns, dtype = self._columns[name]
        getattr(self, name).append(torch.as_tensor(rows, dtype=dtype, device=self.device).reshape(-1, columns))

    def _rows(self, name: str) -> np.ndarray:
        rows = getattr(self, name)  # one tensor once the ranks have been joined
        columns, dtype = self._columns[name]
        empty = torch.empty(0, columns, dtype=dtype, device=self.device)
        return torch.cat((empty, *([rows] if isinstance(rows, Tensor) else rows))).cpu().numpy()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the ranks, one of which may have seen no image: it takes part with tensors of no rows."""
        for name, (columns, dtype) in self._columns.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.empty(0, columns, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)


class VOCAveragePrecision(_RowMetric):
    """Average precision at one IoU (Everingham et al. 2010, section 4.2).

    Detections are taken by descending score, equal scores by image, and compared with the one box of their class that
    they overlap most. They are right if the IoU reaches the threshold and no detection before them had that box. A
    detection of a difficult object is not counted, nor is the object itself.

    ``compute`` returns ``ap``, float64 (K,), NaN for a class without objects, and ``map``, its mean over the others.
    torchmetrics makes a tensor () of one of a single element.

    Args:
        num_classes: K, without the background.
        interpolation: ``"11-point"``: the mean, over recalls 0, 0.1, …, 1, of the greatest precision at this recall or
            beyond (VOC 2007); ``"area"``: the area below the curve of these (VOC 2010 and later).
        iou_threshold: intersection over union that makes a detection right.
    """

    objects: Tensor
    """int64 (K,): those of each class that count."""

    def __init__(self, num_classes: int, interpolation: Interpolation = "11-point", iou_threshold: float = 0.5) -> None:
        super().__init__(num_classes)
        check_choice("interpolation", interpolation, Interpolation)
        self.interpolation, self.iou_threshold = interpolation, iou_threshold
        self._add_rows("scores", 1, torch.float32)
        self._add_rows("outcomes", 3, torch.int64)  # image, class, what became of it
        self.add_state("objects", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, detections: Sequence[Mapping[str, Tensor]], targets: Mapping[str, Any]) -> None:
        """Compare the detections of a batch with its objects.

        Args:
            detections: of each image ``boxes`` (D, 4), ``scores`` (D,) and ``labels`` (D,) from 0 to K − 1.
            targets: of all images, one after another, ``boxes`` (B, 4), ``labels`` (B,) and ``difficult`` (B,); of each
                image ``counts`` and ``ids``.
        """
        scores, outcomes = [], []
        for found, truth, key in _images(detections, targets):
            became = match(*found, *truth, iou_threshold=self.iou_threshold)
            scores.append(found[1])
            outcomes.append(np.stack((np.full_like(became, key), found[2], became), 1))
        self._append("scores", np.concatenate(scores) if scores else np.empty(0))
        self._append("outcomes", np.concatenate(outcomes) if outcomes else np.empty((0, 3)))
        counted = targets["labels"][~targets["difficult"]].to(self.device)
        self.objects += counted.bincount(minlength=self.num_classes)

    def compute(self) -> dict[str, Tensor]:
        """``map`` () and ``ap`` (K,)."""
        scores, outcomes, objects = self._rows("scores")[:, 0], self._rows("outcomes"), self.objects.tolist()
        # Detections of one image lie in their order on whatever rank, and the sort is stable.
        order = np.lexsort((outcomes[:, 0], -scores))
        outcomes = outcomes[order]
        outcomes = outcomes[outcomes[:, 2] != IGNORED]
        curves = [outcomes[outcomes[:, 1] == label, 2] == TRUE for label in range(self.num_classes)]
        ap = [average_precision(right, n, self.interpolation) for right, n in zip(curves, objects, strict=True)]
        return _means(np.array(ap, dtype=np.float64))


class COCOAveragePrecision(_RowMetric):
    """Average precision over the IoUs .5, .55, …, .95 (Lin et al. 2014), computed by pycocotools.

    A difficult object is given to it as a crowd: detections within it are not counted. Boxes that lie on a resized
    image are measured in pixels of the original one. An object is small (up to 32²), medium or large (from 96²) by the
    area that comes with it, and without one by that of its box. An image has at most 100 detections.

    ``compute`` returns ``map``, ``map50``, ``map75``, ``map_small``, ``map_medium``, ``map_large`` and ``ap`` (K,), of
    each class; NaN where there is no object. With ``masks`` it also returns these with ``mask_`` before their names,
    for the overlap of masks in place of boxes; an object without an area then has that of its mask.

    Args:
        num_classes: K, without the background.
        masks: whether masks are scored too.

    Raises:
        NetworkError: pycocotools is not installed; in ``update``, masks are to be scored and there are none.
    """

    def __init__(self, num_classes: int, masks: bool = False) -> None:
        super().__init__(num_classes)
        pycocotools("cocoeval")
        self.masks = masks
        if masks:
            # A line of text for each, as run lengths are of any length: height, width, run lengths.
            self._add_rows("mask_lines", 1, torch.uint8)
            self._add_rows("true_mask_lines", 1, torch.uint8)
        self._add_rows("boxes", 5, torch.float32)  # and the score
        self._add_rows("labels", 2, torch.int64)  # image, class
        self._add_rows("true_boxes", 4, torch.float32)
        self._add_rows("true_labels", 3, torch.int64)  # image, class, difficult
        self._add_rows("true_areas", 1, torch.int64)  # the bits of float64, which not every device has

    def update(self, detections: Sequence[Mapping[str, Tensor]], targets: Mapping[str, Any]) -> None:
        """Keep the detections of a batch and its objects; see :meth:`VOCAveragePrecision.update`.

        Args:
            detections: of each image.
            targets: of all images; with ``sizes`` and ``original_sizes`` of each if the boxes lie on resized ones, and
                ``run_lengths`` of all objects if masks are scored, see
                :func:`~lit_models.instance_masks.run_lengths`. ``areas`` of all objects in the original images may be
                among them.
        """
        to_original = _scales(targets)
        for number, (found, truth, key) in enumerate(_images(detections, targets)):
            (boxes, scores, labels), (true_boxes, true_labels, difficult) = found, truth
            self._append("boxes", np.column_stack((boxes * to_original[number], scores)))
            self._append("labels", np.column_stack((np.full_like(labels, key), labels)))
            self._append("true_boxes", true_boxes * to_original[number])
            self._append("true_labels", np.column_stack((np.full_like(true_labels, key), true_labels, difficult)))
        areas = targets.get("areas", [np.nan] * len(targets["labels"]))
        self._append("true_areas", np.array(areas, dtype=np.float64).view(np.int64))
        if self.masks and detections:
            self._keep_masks(detections, targets, to_original)

    def _keep_masks(
        self, detections: Sequence[Mapping[str, Tensor]], targets: Mapping[str, Any], to_original: np.ndarray
    ) -> None:
        if "run_lengths" not in targets or "masks" not in detections[0]:
            raise NetworkError(
                "the score coco_masks compares masks, and there are none: take a network that finds them, as MaskRCNN,"
                " and COCODetection with masks: true; or score: coco"
            )
        sizes = targets["original_sizes"]
        for one, scale, size in zip(detections, to_original, sizes, strict=True):
            boxes = one["boxes"].cpu() * torch.from_numpy(scale)
            self._append_lines("mask_lines", run_lengths(one["masks"], boxes, size), [size] * len(boxes))
        of_object = [size for size, count in zip(sizes, targets["counts"], strict=True) for _ in range(count)]
        self._append_lines("true_mask_lines", targets["run_lengths"], of_object)

    def _append_lines(self, name: str, counts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
        lines = "".join(f"{h} {w} {text}\n" for text, (h, w) in zip(counts, sizes, strict=True))
        self._append(name, np.frombuffer(lines.encode(), dtype=np.uint8).copy())

    def _lines(self, name: str) -> list[dict[str, Any]]:
        lines = (line.split() for line in self._rows(name).tobytes().decode().splitlines())
        return [{"size": [int(height), int(width)], "counts": counts} for height, width, counts in lines]

    def compute(self) -> dict[str, Tensor]:
        """The means () and ``ap`` (K,)."""
        scores = self._judged("bbox")
        if self.masks:
            scores |= {f"mask_{name}": score for name, score in self._judged("segm").items()}
        return scores

    def _judged(self, overlap: Literal["bbox", "segm"]) -> dict[str, Tensor]:
        found, truth = self._rows("labels"), self._rows("true_labels")
        boxes, true_boxes = self._rows("boxes"), self._rows("true_boxes")
        areas = self._rows("true_areas")[:, 0].view(np.float64)
        masks, true_masks = (
            self._lines(name) if overlap == "segm" else None for name in ("mask_lines", "true_mask_lines")
        )
        classes = range(self.num_classes)
        images = np.unique(np.concatenate((found[:, 0], truth[:, 0]))).tolist()
        with redirect_stdout(io.StringIO()):
            objects = _data_set(images, classes, true_boxes, truth, np.zeros(len(truth)), true_masks, areas)
            results = _data_set(images, classes, boxes[:, :4], np.pad(found, ((0, 0), (0, 1))), boxes[:, 4], masks)
            judged = pycocotools("cocoeval").COCOeval(objects, results, overlap)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        stats = np.where(judged.stats < 0, np.nan, judged.stats)
        # (IoU, recall, class, area, detections): of all areas, with 100 detections
        precision = judged.eval["precision"][:, :, :, 0, -1]
        ap = [row[row > -1].mean() if (row > -1).any() else np.nan for row in precision.transpose(2, 0, 1)]
        return _means(
            np.array(ap),
            stats[_COCO_MEAN],
            map50=stats[_COCO_50],
            map75=stats[_COCO_75],
            map_small=stats[_COCO_SMALL],
            map_medium=stats[_COCO_MEDIUM],
            map_large=stats[_COCO_LARGE],
        )


def match(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    difficult: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """What becomes of each detection in an image: int64 (D,), ``TRUE``, ``FALSE`` or ``IGNORED``.

    A detection is compared with its best box alone, even if another detection has that: so which one of a box's
    detections is right depends on their scores only.

    Args:
        boxes: (D, 4).
        scores: (D,).
        labels: (D,).
        true_boxes: (B, 4).
        true_labels: (B,).
        difficult: bool (B,).
        iou_threshold: least intersection over union of a true positive.
    """
    became = np.full(len(boxes), FALSE, dtype=np.int64)
    if not len(boxes) or not len(true_boxes):
        return became
    overlap = np.where(labels[:, None] == true_labels, iou(boxes, true_boxes), -1.0)
    best = overlap.argmax(1)
    found = overlap[np.arange(len(boxes)), best] >= iou_threshold
    candidates = np.argsort(-scores, kind="stable")
    candidates = candidates[found[candidates]]
    _, first = np.unique(best[candidates], return_index=True)
    became[candidates[first]] = TRUE
    became[found & difficult[best]] = IGNORED
    return became


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (D, 4) and (B, 4), x1 y1 x2 y2: (D, B)."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = sides.clip(min=0).prod(2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    union = areas[:, None] + other_areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def average_precision(right: np.ndarray, objects: int, interpolation: Interpolation) -> float:
    """Of one class; NaN if it has no objects.

    Args:
        right: bool (D,), of each detection that counts, by descending score.
        objects: number of objects to find.
        interpolation: see :class:`VOCAveragePrecision`.
    """
    if not objects:
        return float("nan")
    true = right.cumsum()
    precision = true / np.arange(1, len(true) + 1)
    beyond = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)  # greatest from here on
    if interpolation == "11-point":
        # The first detection at which the recall is k / 10, in whole numbers: 3 / 10 < 3 * 0.1.
        return float(beyond[np.searchsorted(10 * true, np.arange(11) * objects)].mean())
    return float((right * beyond[:-1]).sum() / objects)


def _images(
    detections: Sequence[Mapping[str, Tensor]], targets: Mapping[str, Any]
) -> list[tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray], int]]:
    """Boxes, scores and labels found in each image; its boxes, labels and which are difficult; its key."""
    if len(detections) != len(targets["counts"]):
        raise ValueError(f"there are detections of {len(detections)} images and targets of {len(targets['counts'])}")
    if not detections:
        return []
    ends = np.cumsum(targets["counts"])[:-1]
    truth = [np.split(_array(targets[name]), ends) for name in ("boxes", "labels", "difficult")]
    found = [tuple(_array(one[name]) for name in ("boxes", "scores", "labels")) for one in detections]
    keys = [_key(image) for image in targets["ids"]]
    return list(zip(found, zip(*truth, strict=True), keys, strict=True))  # type: ignore[arg-type]


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()


def _key(image: int | str) -> int:
    """A number for an image, the same on every rank."""
    if isinstance(image, int):
        return image
    return int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "big") >> 1


def _scales(targets: Mapping[str, Any]) -> np.ndarray:
    """What boxes are multiplied by to lie on the original images: (N, 4)."""
    if "original_sizes" not in targets:
        return np.ones((len(targets["counts"]), 4))
    sizes, originals = (np.array(targets[name], dtype=np.float64) for name in ("sizes", "original_sizes"))
    return np.tile((originals / sizes).reshape(-1, 2)[:, ::-1], 2)


def _means(ap: np.ndarray, mean: float | None = None, **others: float) -> dict[str, Tensor]:
    if mean is None:
        mean = float("nan") if np.isnan(ap).all() else float(np.nanmean(ap))
    scores = {"map": mean, **others}
    return {name: torch.tensor(score, dtype=torch.float64) for name, score in scores.items()} | {
        "ap": torch.from_numpy(ap)
    }


def _data_set(
    images: list[int],
    classes: range,
    boxes: np.ndarray,
    keys: np.ndarray,
    scores: np.ndarray,
    masks: list[dict[str, Any]] | None,
    areas: np.ndarray | float = np.nan,
) -> Any:
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = np.where(np.isnan(areas), sides.prod(1) if masks is None else pycocotools("mask").area(masks), areas)
    annotations: list[dict[str, Any]] = [
        # Id 0 is what pycocotools takes for "not matched".
        {"id": number, "image_id": image, "category_id": label, "iscrowd": crowd, "bbox": box, "area": area, "score": s}
        for number, ((image, label, crowd), box, area, s) in enumerate(
            zip(
                keys.tolist(),
                np.column_stack((boxes[:, :2], sides)).tolist(),
                areas.tolist(),
                scores.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    for annotation, mask in zip(annotations, masks or (), strict=False):
        annotation["segmentation"] = mask
    data = pycocotools("coco").COCO()
    data.dataset = {
        # Their sizes are looked up and not used, as run lengths have their own.
        "images": [{"id": image, "height": None, "width": None} for image in images],
        "categories": [{"id": label} for label in classes],
        "annotations": annotations,
    }
    data.createIndex()
    return data
