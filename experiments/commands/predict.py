"""Write the classes a checkpoint sees in images: RUN --images FOLDER, or --ckpt_path RUN for its test part."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.run.prediction_writer import as_text
from datamodules.pipeline.image_data import ImageData
from experiments.device import best_device
from experiments.errors import UsageError
from experiments.export.contact_sheet import contact_sheet
from experiments.export.pictures import Picture, pictures, read_all
from experiments.export.trained import Trained, open_trained
from experiments.runs.directory import new_run_directory
from lit_models.files import atomic

_TOP = 5


class Seen(NamedTuple):
    """What the network sees in an image."""

    picture: Picture
    label: int | None
    """Class that a folder tells."""
    classes: list[int]
    """The most probable ones, best first."""
    probabilities: list[float]

    @property
    def is_mistake(self) -> bool:
        """Whether a folder tells another class."""
        return self.label is not None and self.label != self.classes[0]


def predict(
    run: Path,
    images: list[str] | None = None,
    worst: int = 0,
    out: Path | None = None,
    batch_size: int = 64,
    data: ImageData | None = None,
) -> None:
    """Classify image files, prepared as the run's evaluation prepares them, and write a table.

    Args:
        run: run directory, whose best checkpoint is taken, a checkpoint, or pretrained:NAME.
        images: files, folders (at any depth) or globs. A folder with the name of a class gives its images that label.
        worst: number of the most confident mistakes to show on a contact sheet, beside the table.
        out: table to write (default: predictions.csv in a new folder predict/ of the run).
        batch_size: number of images in a forward pass.
        data: data module that says how images are prepared (default: the run's, which need not be there).
    """
    if not images:
        raise UsageError("say which images: --images FILE, FOLDER or GLOB, one or several")
    if worst < 0 or batch_size < 1:
        raise UsageError("--worst is a number of images, and --batch_size at least 1")
    trained = open_trained(run, data)
    found = pictures(images)
    root = Path("runs") if trained.config is None else trained.config.parent
    table = out or new_run_directory(root, "predict") / "predictions.csv"
    broken: list[OSError] = []
    seen = list(_classified(trained, found, batch_size, broken))
    for error in broken:
        print(error)
    if broken:
        print(f"{len(broken)} of {len(found)} files can't be read and are not in the table")
    if not seen:
        raise MisconfigurationException("none of these files can be read, so there is nothing to predict")
    _write(seen, trained.class_names, table)
    print(f"{len(seen)} predictions in {table}")
    labelled = [one for one in seen if one.label is not None]
    if labelled:
        from scipy.stats import binomtest

        right = sum(not one.is_mistake for one in labelled)
        low, high = binomtest(right, len(labelled)).proportion_ci(method="wilson")
        print(
            f"top-1 {right / len(labelled):.2%} of {len(labelled)} labelled images"
            f" (95% interval {low:.2%} to {high:.2%}, Wilson)"
        )
    if worst:
        _show_worst(seen, trained, table.with_name("worst.png"), worst)


@torch.inference_mode()
def _classified(trained: Trained, found: list[Picture], batch_size: int, broken: list[OSError]) -> Iterator[Seen]:
    device = best_device()
    net = trained.net.to(device)
    batch: list[tuple[Picture, Tensor]] = []
    last = found[-1]
    for picture, image in read_all(found, trained.geometry):
        if isinstance(image, OSError):
            broken.append(image)
        else:
            batch.append((picture, image))
        if batch and (len(batch) == batch_size or picture is last):
            logits = net(trained.images(torch.stack([image for _, image in batch]).to(device)))
            top = logits.float().softmax(1).topk(min(_TOP, logits.shape[1]))
            for (picture_, _), probabilities, classes in zip(
                batch, top.values.tolist(), top.indices.tolist(), strict=True
            ):
                yield Seen(picture_, picture_.label(trained.class_names), classes, probabilities)
            batch = []


def _write(seen: list[Seen], names: list[str], table: Path) -> None:
    numbers = range(1, len(seen[0].classes) + 1)
    with atomic(table) as file:
        writer = csv.writer(file)
        columns = [column for number in numbers for column in (f"class_{number}", f"probability_{number}")]
        writer.writerow(["file", "label", *columns])
        for picture, label, classes, probabilities in seen:
            cells = [
                cell
                for index, probability in zip(classes, probabilities, strict=True)
                for cell in (as_text(names[index]), f"{probability:.4f}")
            ]
            writer.writerow([as_text(picture.path), "" if label is None else as_text(names[label]), *cells])


def _show_worst(seen: list[Seen], trained: Trained, path: Path, number: int) -> None:
    mistakes = sorted((one for one in seen if one.is_mistake), key=lambda one: -one.probabilities[0])[:number]
    if not mistakes:
        print("no mistakes among the labelled images, so no contact sheet")
        return
    names = trained.class_names
    pixels = [image for _, image in read_all([one.picture for one in mistakes], trained.geometry)]
    captions = []
    for place, one in enumerate(mistakes, 1):
        wrong, right = names[one.classes[0]], names[one.label or 0]
        captions.append(f"{place}: {one.probabilities[0]:.0%} {wrong}, is {right}")
        print(f"{captions[-1]}: {one.picture.path}")
    missing = contact_sheet([image.numpy() for image in pixels if isinstance(image, Tensor)], captions, path)
    if missing:
        print(f"no font of this system has {missing}: these letters are dots on the sheet; install one (Noto Sans CJK)")
    print(f"the {len(mistakes)} most confident mistakes in {path}")
