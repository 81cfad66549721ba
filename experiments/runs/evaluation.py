"""Which classes a classifier takes for which, and the images it does worst on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_models.pictures import pixels


class _Images(NamedTuple):
    images: Tensor
    targets: Tensor
    logits: Tensor
    losses: Tensor

    def joined(self, other: _Images) -> _Images:
        return _Images(*map(torch.cat, zip(self, other, strict=True)))

    def chosen(self, which: Any) -> _Images:
        return _Images(*(column[which] for column in self))


class Evaluation:
    """Collects on the device, without synchronising with it, what an evaluation shows beyond its means.

    Args:
        num_classes: K.
        device: of the batches.
        images: number of images that are kept: the first ones, and as many with the highest losses.
    """

    def __init__(self, num_classes: int, device: torch.device, images: int = 16) -> None:
        self.images = images
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)
        """(K, K) numbers of images by true and by predicted class."""
        self._first: _Images | None = None
        self._worst: _Images | None = None

    def update(self, images: Tensor, targets: Tensor, logits: Tensor) -> None:
        """Add a batch: images (N, C, H, W), targets (N,), logits (N, K)."""
        logits = logits.float()
        cells = targets * len(self.matrix) + logits.argmax(1)
        self.matrix.view(-1).index_add_(0, cells, torch.ones_like(cells))
        batch = _Images(images, targets, logits, F.cross_entropy(logits, targets, reduction="none"))
        if self._first is None or self._worst is None:
            self._first = self._worst = batch.chosen(slice(0))
        if len(self._first.losses) < self.images:
            self._first = self._first.joined(batch).chosen(slice(self.images))
        candidates = self._worst.joined(batch)
        self._worst = candidates.chosen(candidates.losses.topk(min(self.images, len(candidates.losses))).indices)

    def confusion(self, names: Sequence[str]) -> list[list[Any]]:
        """Rows of true class, predicted class and number of images."""
        counts = self.matrix.tolist()
        return [[true, predicted, counts[i][j]] for i, true in enumerate(names) for j, predicted in enumerate(names)]

    def by_class(self, names: Sequence[str]) -> list[list[Any]]:
        """Rows of class, number of images and accuracy, of the classes that there are images of."""
        rows = zip(names, self.matrix.sum(1).tolist(), self.matrix.diag().tolist(), strict=True)
        return [[name, images, hits / images] for name, images, hits in rows if images]

    def shown(self, names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> list[list[Any]]:
        """Rows of an image (H, W, C), why it is shown, its class, its five most probable ones and its loss."""
        return [
            row
            for why, kept in (("first", self._first), ("worst", self._worst))
            if kept is not None
            for row in _rows(why, kept, names, pixels(kept.images, mean, std))
        ]


def _rows(why: str, kept: _Images, names: Sequence[str], images: Tensor) -> list[list[Any]]:
    probabilities, classes = kept.logits.softmax(1).topk(min(5, kept.logits.shape[1]))
    top5 = [
        ", ".join(f"{names[k]} {p:.2f}" for p, k in zip(*row, strict=True))
        for row in zip(probabilities.tolist(), classes.tolist(), strict=True)
    ]
    columns = (images.permute(0, 2, 3, 1).numpy(), kept.targets.tolist(), top5, kept.losses.tolist())
    return [[image, why, names[target], top, loss] for image, target, top, loss in zip(*columns, strict=True)]
