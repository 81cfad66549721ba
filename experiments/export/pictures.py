"""Image files that a user names: found, read side by side, and those that can't be read kept apart."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from datamodules.pipeline.decode import read_bytes
from datamodules.pipeline.folder import EXTENSIONS, images_below, passed_over
from experiments.errors import UsageError

T = TypeVar("T")
_AT_ONCE = 256


class Picture(NamedTuple):
    """An image file."""

    path: str
    folders: tuple[str, ...]
    """Names of the folders it lies in, nearest first, up to the one that the user named."""

    def label(self, class_names: list[str]) -> int | None:
        """The class whose name one of the folders has; macOS and Linux may write it in different code points."""
        known = {unicodedata.normalize("NFC", name): index for index, name in enumerate(class_names)}
        folders = (unicodedata.normalize("NFC", name) for name in self.folders)
        return next((known[name] for name in folders if name in known), None)


def pictures(words: Iterable[str]) -> list[Picture]:
    """The images of files, folders (at any depth) and globs, in the order of their paths, each once.

    Raises:
        UsageError: for a word that names none.
    """
    found: dict[str, Picture] = {}
    for word in words:
        path = os.path.expanduser(word)
        top = path if os.path.isdir(path) else os.path.dirname(path.partition("*")[0].partition("?")[0])
        if os.path.isdir(path):
            files = list(images_below(path.rstrip("/") or "/", path.rstrip("/")))
        elif os.path.isfile(path):
            files = [path]
        else:
            files = [file for file in glob.glob(path, recursive=True) if os.path.isfile(file) and _is_image(file)]
        if not files:
            kinds = ", ".join(sorted(EXTENSIONS))
            raise UsageError(f"{word} names no image ({kinds}): give files, folders or globs")
        for file in sorted(files):
            found.setdefault(file, Picture(file, _folders(file, top)))
    return list(found.values())


def other_files(folder: Path) -> Counter[str]:
    """Number of files below ``folder`` by their suffix that are not named like an image, hidden ones left out."""
    visible = (path for path in folder.rglob("*") if not any(map(passed_over, path.relative_to(folder).parts)))
    return Counter(path.suffix.lower() or path.name for path in visible if path.is_file() and not _is_image(str(path)))


def read_all(found: list[Picture], read: Callable[[bytes, str], T]) -> Iterator[tuple[Picture, T | OSError]]:
    """What ``read`` makes of the content and name of each file, or why it can't; in order, with as many threads as
    there are processors.
    """

    def outcome(picture: Picture) -> T | OSError:
        try:
            return read(read_bytes(picture.path), picture.path)
        except OSError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(found), _AT_ONCE):  # a queue without end would hold all of them
            part = found[start : start + _AT_ONCE]
            yield from zip(part, threads.map(outcome, part), strict=True)


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in EXTENSIONS


def _folders(file: str, top: str) -> tuple[str, ...]:
    below = os.path.relpath(os.path.dirname(file) or ".", top or ".")
    parts = () if below == "." else Path(below).parts
    return (*reversed(parts), Path(os.path.abspath(top)).name)
