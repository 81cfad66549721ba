"""Decode every image below a folder, and name all that are broken."""

from __future__ import annotations

from pathlib import Path

from datamodules.pipeline.decode import MAX_PIXELS, decode
from experiments.errors import UsageError
from experiments.export.pictures import other_files, pictures, read_all


def scan(folder: Path, max_pixels: int = MAX_PIXELS) -> None:
    """Decode every image below FOLDER, at any depth, and list all that are broken; the exit code is then 1.

    Args:
        folder: of a data set, or any other with images in it.
        max_pixels: limit on the pixels of a photo; one that claims more counts as broken.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    found = pictures([str(folder)])
    broken = 0
    for _, result in read_all(found, lambda data, name: decode(data, name, max_pixels=max_pixels).shape):
        if isinstance(result, OSError):
            broken += 1
            print(result)
    for suffix, count in sorted(other_files(folder).items()):
        print(f"{count} {suffix}: not read, as the name is not that of an image")
    if broken:
        raise UsageError(
            f"{broken} of {len(found)} images below {folder} are broken: replace or remove them, or train with"
            " --data.corrupt skip"
        )
    print(f"{len(found)} images below {folder}, all whole")
