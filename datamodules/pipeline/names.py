"""Lists of images by the stems of their files."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException


def image_files(folder: Path, extensions: Collection[str]) -> dict[str, str]:
    """The files of a folder that end in one of ``extensions``, by stem, in code-point order.

    Raises:
        MisconfigurationException: there is no such folder, or two files have one stem.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MisconfigurationException(f"{folder} is no folder; check the folder of the data set.") from error
    found: dict[str, str] = {}
    for name in names:
        stem, extension = os.path.splitext(name)
        if name.startswith(".") or extension.lower() not in extensions:
            continue
        if stem in found:
            raise MisconfigurationException(f"{folder} has both {found[stem]} and {name}; remove one of the two.")
        found[stem] = name
    return found


def read_names(path: Path, files: Collection[str], folder: str) -> list[str]:
    """The stems in a list, one a line; what follows on the line is passed over.

    Args:
        path: of the list.
        files: stems that there are.
        folder: where these are, for errors.

    Raises:
        MisconfigurationException: there is no such list, or it has a name twice, or one without a file, or none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MisconfigurationException(f"{path} is no readable list of images ({error}); check its path.") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise MisconfigurationException(f"{path} is empty; it needs the name of an image on each line.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MisconfigurationException(f"{path} has {name} twice; remove one of the two.")
        if name not in files:
            raise MisconfigurationException(
                f"{path} has {name}, of which there is no file in {folder}; remove the line."
            )
        seen.add(name)
    return names
