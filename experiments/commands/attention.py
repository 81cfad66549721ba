"""Show where several networks look in photos, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.folder import EXTENSIONS
from datamodules.pipeline.image_data import ImageData
from experiments.errors import UsageError
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.attention import attention_maps, half_of_attention
from experiments.unravel.attention_figure import Look, attention_figure
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import Record, write_records
from experiments.unravel.source import Subject, open_subject
from lit_models.pictures import pixels

WANDB = WandbOptions()
NOTE = "Grad-CAM in the last feature maps, for the class that is predicted, with its probability"


def attention(
    networks: list[str],
    images: Path | None = None,
    count: PositiveInt = 8,
    data: ImageData | None = None,
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Draw Grad-CAM of several networks in their last feature maps: attention.csv and attention.png.

    A row for each image, a column for each network. Each network gets the images as its data module prepares those of
    the test, and is asked for the class that it predicts. The table has the share of pixels that hold half of the
    attention, which is small where it is concentrated.

    Args:
        networks: run directories, checkpoints, pretrained:NAME, timm:NAME or torchvision:NAME.
        images: an image file, or a folder of them.
        count: number of images that are taken of a folder, evenly spaced by name.
        data: data module that says how images are prepared and what the classes are (default: that of each run).
        weights: weights file for timm:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the directory of the first run).
        seed: random seed for initialisation.
        wandb: what is logged to Weights & Biases.
    """
    files = image_files(images, count)
    looks: list[list[Look]] = []
    records: list[Record] = []
    subjects = [open_subject(network, data, weights, seed) for network in networks]
    for subject, name in zip(subjects, _told_apart(subjects), strict=True):
        shown, column = looks_of(subject, name, files)
        looks.append(shown)
        records += column
    directory = out or subjects[0].directory
    write_records(directory / "attention.csv", records)
    rows = list(zip(*looks, strict=True))
    draw_and_publish(
        subjects[0], "attention", records, directory, lambda path: attention_figure(rows, path, NOTE), wandb
    )


def looks_of(subject: Subject, name: str, files: Sequence[Path]) -> tuple[list[Look], list[Record]]:
    """What a network makes of each file, and the rows of the table."""
    prepared = subject.prepared(files)
    with torch.no_grad():
        probabilities = subject.net(prepared).softmax(1)
    best, classes = probabilities.max(1)
    maps = attention_maps(subject.net, prepared, classes).cpu()
    seen = pixels(prepared, subject.data.mean, subject.data.std)
    identity = {"network": name, "fingerprint": subject.fingerprint()}
    looks, records = [], []
    for file, image, attended, half, probability, label in zip(
        files, seen, maps, half_of_attention(maps).tolist(), best.tolist(), classes.tolist(), strict=True
    ):
        title = subject.data.class_names[label]
        looks.append(Look(name, image, attended, f"{title} {probability:.0%}"))
        about = {"image": file.name, "class": title, "probability": f"{probability:.4f}"}
        records.append(identity | about | {"half_of_attention": f"{half:.4f}"})
    return looks, records


def image_files(path: Path | None, count: int) -> list[Path]:
    """``path`` itself, or up to ``count`` images below it.

    Raises:
        UsageError: where it is not given.
        FileNotFoundError: where there is nothing.
        MisconfigurationException: for a folder without images.
    """
    if path is None:
        raise UsageError("say where to look: --images with an image file or a folder of them")
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: give --images an image file or a folder of them")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("[!.]*") if file.suffix.lower() in EXTENSIONS and file.is_file())
    if not found:
        raise MisconfigurationException(f"{path} has no image in it ({', '.join(sorted(EXTENSIONS))})")
    count = min(count, len(found))
    return [found[number * len(found) // count] for number in range(count)]


def _told_apart(subjects: Sequence[Subject]) -> list[str]:
    """Their names; those of one name have their fingerprints added."""
    names = [subject.name for subject in subjects]
    return [
        name if names.count(name) == 1 else f"{name} {subject.fingerprint()}"
        for name, subject in zip(names, subjects, strict=True)
    ]
