"""Folders of images, one sub-folder per class."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

EXTENSIONS = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_EXTENSION = re.compile(rf"[^.].*({'|'.join(map(re.escape, EXTENSIONS))})$", re.IGNORECASE)
_OF_SYSTEMS = {"__MACOSX", "Thumbs.db"}


class Paths(Sequence[str]):
    """Paths in one tensor: a quarter of the memory of as many texts, and worker processes share it.

    They cannot share texts, as looking one up counts a reference in the memory it is in.
    """

    def __init__(self, text: Tensor) -> None:
        self._text = text
        """Their bytes, uint8, with a zero after each, which no path has in it."""
        self._ends = (text == 0).nonzero()[:, 0]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        """Those of texts."""
        text = bytearray(os.fsencode("".join(f"{path}\0" for path in paths)))
        return cls(torch.frombuffer(text, dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8))

    @classmethod
    def joined(cls, parts: Sequence[Paths]) -> Paths:
        """Those of all parts, one part after the other."""
        return cls(torch.cat([part._text for part in parts]))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        start = self._ends[number - 1] + 1 if number else 0
        return os.fsdecode(self._text[start : self._ends[number]].numpy().tobytes())

    def __iter__(self) -> Iterator[str]:
        return iter(os.fsdecode(self._text.numpy().tobytes()).split("\0")[:-1])


class Listing(NamedTuple):
    """The images of one part of a data set, by class, then by name."""

    root: Path
    """Folder of the data set."""
    files: Sequence[str]
    """Paths below ``root``."""
    labels: Tensor
    """int64 (N,)."""
    class_names: list[str]

    def __add__(self, other: Listing) -> Listing:  # type: ignore[override]
        """The images of both, these first."""
        files = Paths.joined([Paths.of(part.files) for part in (self, other)])
        return self._replace(files=files, labels=torch.cat((self.labels, other.labels)))

    def stamps(self) -> tuple[list[int], list[int]]:
        """Size in bytes and time of the last change in nanoseconds, of each file; all are looked at now."""
        found = np.empty((len(self.files), 2), np.int64)
        for stamp, file in zip(found, self.files, strict=True):
            status = os.stat(f"{self.root}/{file}")
            stamp[:] = status.st_size, status.st_mtime_ns
        return found[:, 0].tolist(), found[:, 1].tolist()


class ImageFolder:
    """The parts of a data set, found by their folders.

    ``train/`` has the training images, in one folder per class. If ``val/`` and ``test/`` have these class folders too,
    they are the validation and the test part. If only one of them has, it is the test part, and validation is cut from
    ``train/``: so in ImageNet, whose ``val/`` is what papers report on. Without a ``train/`` the classes are looked for
    in the root itself, and there is no test part.

    Within a class images are found at any depth.

    Args:
        root: folder of the data set.

    Raises:
        FileNotFoundError: there is no such folder.
        MisconfigurationException: see :func:`list_images`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root} is no folder; give the folder of the data set as data.root.")
        self._train = "train" if (self.root / "train").is_dir() else "."
        training = list_images(self.root, self._train)
        self.class_names = training.class_names
        labelled = [] if self._train == "." else [part for part in ("val", "test") if self._has_classes(part)]
        self._test = labelled[-1] if labelled else None
        self._val = "val" if len(labelled) == 2 else None
        self.training = training + list_images(self.root, self._val, self.class_names) if self._val else training
        """Training images, then those of ``val/`` if it is the validation part."""
        self.held_out = len(self.training.files) - len(training.files)
        """Number of the latter."""
        self.only_training = training

    @property
    def has_test(self) -> bool:
        """Whether there is a test part."""
        return self._test is not None

    def test(self) -> Listing:
        """The images of the test part.

        Raises:
            MisconfigurationException: there is none, or it has a class that the training images do not have.
        """
        if self._test is None:
            raise MisconfigurationException(
                f"{self.root} has no test part: beside train/ there is no test/ or val/ folder with its class folders."
            )
        return list_images(self.root, self._test, self.class_names)

    def folders(self, val_fraction: float) -> dict[str, str]:
        """Where each part comes from, in words."""
        val = f"{self._val}/" if self._val else f"{val_fraction:.3g} of {self._train}/"
        return {
            "train": f"{self._train}/",
            "val": val if val_fraction else "none",
            "test": f"{self._test}/" if self._test else "none",
        }

    def _has_classes(self, part: str) -> bool:
        known = set(self.class_names)
        path = self.root / part
        return path.is_dir() and any(name in known for name in _folders(path))


def list_images(root: Path, part: str, class_names: list[str] | None = None) -> Listing:
    """Find the images of each class, at any depth below the folder of the class.

    Only regular files that are named like an image are taken; hidden files, and those that macOS and Windows leave in
    folders and archives, are passed over.

    Args:
        root: folder of the data set.
        part: folder of class folders, below ``root``.
        class_names: the classes, in the order of their labels (default: the folders' names in code-point order).

    Raises:
        MisconfigurationException: no class folder, one without images, or one of a class that is not in
            ``class_names``.
        PermissionError: a folder that may not be read.
    """
    top = root / part
    found = sorted(_folders(top))
    if not found:
        raise MisconfigurationException(f"{top} has no class folder in it; there must be one folder per class.")
    names = class_names if class_names is not None else found
    label = {name: number for number, name in enumerate(names)}
    if unknown := next((name for name in found if name not in label), None):
        raise MisconfigurationException(
            f"{top / unknown} is a class that the training images do not have; they have {len(names)}: "
            f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}."
        )
    below = "" if part == "." else f"{part}/"
    files = []
    for name in found:
        images = sorted(images_below(str(top / name), f"{below}{name}"))
        if not images:
            raise MisconfigurationException(
                f"{top / name} has no image in it ({', '.join(sorted(EXTENSIONS))}); remove the folder or fill it."
            )
        files.append(Paths.of(images))
    labels = torch.tensor([label[name] for name in found]).repeat_interleave(torch.tensor([len(of) for of in files]))
    return Listing(root, Paths.joined(files), labels, names)


def _folders(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        yield from (entry.name for entry in entries if not passed_over(entry.name) and entry.is_dir())


def images_below(folder: str, name: str) -> Iterator[str]:
    """Path of each image below ``folder``; ``name`` is what it begins with."""
    with os.scandir(folder) as entries:
        for entry in entries:
            found = entry.name
            if passed_over(found):
                continue
            if entry.is_dir():
                leads_back = entry.is_symlink() and Path(os.path.realpath(folder)).is_relative_to(
                    os.path.realpath(entry.path)
                )
                if not leads_back:
                    yield from images_below(entry.path, f"{name}/{found}")
            elif _EXTENSION.search(found) and _is_regular(entry):
                yield f"{name}/{found}"


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, of which the folder knows mostly; to open a pipe or a device would wait for ever.

    Raises:
        FileNotFoundError: it is a link that leads nowhere.
    """
    return entry.is_file() or stat.S_ISREG(entry.stat().st_mode)


def passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system leaves behind."""
    return name.startswith(".") or name in _OF_SYSTEMS
