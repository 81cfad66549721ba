"""What the best checkpoint of a run says of its test images, and how it looks."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from experiments.cli.data_of_run import data_module, data_settings
from experiments.cli.messages import is_for_people
from experiments.runs.evaluation import Evaluation
from experiments.unravel.source import open_subject

MOST_CLASSES = 20
"""In a confusion matrix that can be read; of more classes, the pairs that are confused most are listed."""
_PAIRS = 15
_SIDE = 96
"""Most pixels of the longer side of a picture."""


class Picture(NamedTuple):
    """A test image, and what the network takes it for."""

    uri: str
    truth: str
    right: bool
    top: str
    loss: float
    side: int
    """Pixels of the image in the file."""


class Predictions(NamedTuple):
    """Of the test images that were looked at."""

    images: int
    top1: float
    names: list[str]
    matrix: list[list[int]]
    """By true and by predicted class; empty for many classes."""
    confused: list[tuple[str, str, int]]
    """True class, predicted class and number of images, the most frequent first; empty for few classes."""
    first: list[Picture]
    worst: list[Picture]


def predictions(run: Path, images: int, pictures: int) -> Predictions | str:
    """Of the first ``images`` test images, in the fixed order that mixes the classes; or why there are none.

    Args:
        run: a run directory, whose best checkpoint is asked.
        images: how many.
        pictures: the number of those shown, of the first and of those with the highest loss.
    """
    try:
        return _asked(run, images, pictures)
    except Exception as error:  # the data may be gone, the network another package's: the rest of the report is not
        if not (is_for_people(error) or is_for_people(error.__cause__)):
            raise
        return str(error).partition("\n")[0]


@torch.inference_mode()
def _asked(run: Path, images: int, pictures: int) -> Predictions:
    spec = data_settings(run / "config.yaml")
    if spec.get("init_args", {}).get("download"):
        spec["init_args"]["download"] = False
    subject = open_subject(str(run), data_module(spec))
    data = subject.data
    evaluation = Evaluation(data.num_classes, subject.device, pictures)
    for batch, targets in subject.batches(images):
        evaluation.update(batch, targets, subject.net(batch))
    names = list(data.class_names or map(str, range(data.num_classes)))
    shown: dict[str, list[Picture]] = {"first": [], "worst": []}
    for image, why, truth, top, loss in evaluation.shown(names, data.mean, data.std):
        shown[why].append(_picture(image, truth, top, loss))
    matrix = evaluation.matrix.cpu()
    few = len(names) <= MOST_CLASSES
    return Predictions(
        images=int(matrix.sum()),
        top1=(matrix.diag().sum() / matrix.sum()).item(),
        names=names,
        matrix=matrix.tolist() if few else [],
        confused=[] if few else _confused(matrix, names),
        **shown,
    )


def _confused(matrix: torch.Tensor, names: list[str]) -> list[tuple[str, str, int]]:
    wrong = matrix.clone().fill_diagonal_(0).flatten()
    counts, cells = wrong.topk(min(_PAIRS, len(wrong)))
    pairs = zip(counts.tolist(), (divmod(cell, len(names)) for cell in cells.tolist()), strict=True)
    return [(names[true], names[predicted], count) for count, (true, predicted) in pairs if count]


def _picture(pixels: Any, truth: str, top: str, loss: float) -> Picture:
    # The five most probable classes as "NAME 0.97, …", and a name may have commas and blanks.
    name, probability = re.match(r"(.*?) (\d\.\d\d)(?:, |$)", top, re.DOTALL).groups()  # type: ignore[union-attr]
    image = Image.fromarray(np.ascontiguousarray(pixels.squeeze()))
    side = max(image.size)
    image.thumbnail((_SIDE, _SIDE))
    return Picture(data_uri(image), truth, name == truth, f"{name} {float(probability):.0%}", loss, side)


def data_uri(image: Image.Image) -> str:
    """A picture as an address that holds it: small ones without loss, others as JPEG."""
    file = io.BytesIO()
    kind = "png" if max(image.size) <= 32 else "jpeg"
    image.save(file, kind, quality=80, optimize=True)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
