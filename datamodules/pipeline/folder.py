"""Folders of images, one sub-folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Listing(NamedTuple):
    """The images of one part of a data set, by class, then by name."""

    root: Path
    files: list[str]
    """Paths below ``root``."""
    labels: Tensor
    """int64 (N,)."""
    class_names: list[str]
    stamps: list[tuple[int, int]]
    """Size in bytes and time of the last change in nanoseconds, of each file."""


def find_parts(root: str | Path) -> tuple[Path, Path | None]:
    """The folders of the training and of the test images.

    They are ``train/``, and ``test/`` or else ``val/``: as in ImageNet, whose ``val/`` is what papers
    report. Without a ``train/`` the classes are looked for in ``root`` itself, and there is no test part.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the folder of the data set as data.root.")
    train = root / "train"
    if not train.is_dir():
        return root, None
    return train, next((part for part in (root / "test", root / "val") if part.is_dir()), None)


def list_images(root: Path, class_names: list[str] | None = None) -> Listing:
    """Find the images of each class; files that are not named like an image, and hidden ones, are passed
    over.

    Args:
        root: folder of class folders.
        class_names: the classes, in the order of their labels; the folders' names in code-point order where
            not given.

    Raises:
        MisconfigurationException: no class folder, one without images, or one of a class that is not in
            ``class_names``.
        PermissionError: a folder that may not be read.
    """
    found = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    if not found:
        raise MisconfigurationException(f"{root} has no class folder in it; there must be one folder per class.")
    names = class_names if class_names is not None else found
    if unknown := [name for name in found if name not in names]:
        raise MisconfigurationException(
            f"{root / unknown[0]} is a class that the training images do not have; they have {len(names)}: "
            f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}."
        )
    files, labels, stamps = [], [], []
    for name in found:
        images = sorted(
            (e for e in os.scandir(root / name) if os.path.splitext(e.name)[1].lower() in EXTENSIONS),
            key=lambda entry: entry.name,
        )
        images = [e for e in images if not e.name.startswith(".")]
        if not images:
            raise MisconfigurationException(
                f"{root / name} has no image in it ({', '.join(sorted(EXTENSIONS))}); remove the folder or fill it."
            )
        for entry in images:
            stat = entry.stat()
            files.append(f"{name}/{entry.name}")
            stamps.append((stat.st_size, stat.st_mtime_ns))
        labels += [names.index(name)] * len(images)
    return Listing(root, files, torch.tensor(labels), names, stamps)
