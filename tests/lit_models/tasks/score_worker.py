"""Detections and masks scored on one process or two, with a given number of images each; see test_scores_ddp.py."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from lit_models.tasks.average_precision import COCOAveragePrecision, VOCAveragePrecision
from lit_models.tasks.segmentation_scores import VOID, SegmentationScores

CLASSES = 3
SIZE, ORIGINAL = (100, 200), (50, 100)


def image(number):
    """Boxes, detections with few different scores, a mask and a prediction; a function of the number alone."""
    random = torch.Generator().manual_seed(number)

    def boxes(count):
        corners = torch.rand(count, 4, generator=random) * 100
        return torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:] + 1), 1)

    def whole(high, *shape):
        return torch.randint(0, high, shape, generator=random)

    objects = int(whole(6))
    found = int(whole(9))
    truth, labels = boxes(objects), whole(CLASSES, objects)
    near, its = boxes(found), whole(CLASSES, found)
    if objects:
        of = whole(objects, found)
        near, its = (
            truth[of] + torch.randn(found, 4, generator=random),
            torch.where(whole(4, found) == 0, its, labels[of]),
        )
    detections = {"boxes": near, "scores": whole(5, found).float() / 4, "labels": its}
    targets = {"boxes": truth, "labels": labels, "difficult": whole(4, objects) == 0}
    mask = whole(CLASSES, 8, 8)
    seen = mask.masked_fill(whole(5, 8, 8) == 0, VOID), whole(CLASSES, 8, 8)
    detections["masks"] = (torch.rand(found, 1, 8, 8, generator=random) + 0.4).clamp(max=1)  # holes in the boxes
    return detections, targets, *seen


def polygon(box):
    """The four corners of a box on an image of half the size."""
    x1, y1, x2, y2 = (box / 2).tolist()
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def run_lengths(boxes):
    """Of masks that fill the boxes."""
    from pycocotools import mask

    return [mask.frPyObjects([polygon(box)], *ORIGINAL)[0]["counts"].decode() for box in boxes]


def batch(numbers, name=str):
    """The images of these numbers, as the metrics take them."""
    images = [image(number) for number in numbers]
    targets = {key: torch.cat([truth[key] for _, truth, _, _ in images]) for key in ("boxes", "labels", "difficult")}
    targets |= {"counts": [len(truth["boxes"]) for _, truth, _, _ in images], "ids": [name(n) for n in numbers]}
    targets |= {"sizes": [SIZE] * len(images), "original_sizes": [ORIGINAL] * len(images)}
    with suppress(ModuleNotFoundError):
        targets["run_lengths"] = run_lengths(targets["boxes"])
    detections = [found for found, *_ in images]
    return detections, targets, torch.stack([m for *_, m, _ in images]), torch.stack([p for *_, p in images])


def main(folder, rank, *shares):
    """Write the scores for each share-out, as ``6,5`` images to two ranks; all are the same eleven."""
    world_size = shares[0].count(",") + 1
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    found = [scored(rank, [int(count) for count in share.split(",")]) for share in shares]
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))
    if world_size > 1:
        dist.destroy_process_group()


def scored(rank, images_of_ranks):
    """The scores of all metrics, on a rank."""
    metrics = [VOCAveragePrecision(CLASSES), VOCAveragePrecision(CLASSES, "area"), SegmentationScores(CLASSES)]
    with suppress(ValueError):  # without pycocotools
        metrics.append(COCOAveragePrecision(CLASSES, masks=True))
    # As a sampler deals them out.
    mine = list(range(sum(images_of_ranks)))
    mine = mine[rank :: len(images_of_ranks)] if 0 not in images_of_ranks else mine * (images_of_ranks[rank] > 0)
    assert len(mine) == images_of_ranks[rank]
    for start in range(0, len(mine), 4):
        detections, targets, masks, predictions = batch(mine[start : start + 4])
        for metric in metrics:
            if isinstance(metric, SegmentationScores):
                metric.update(predictions, masks)
            else:
                metric.update(detections, targets)
    return [{name: value.tolist() for name, value in metric.compute().items()} for metric in metrics]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
