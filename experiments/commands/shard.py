"""Write a folder of photos as shards that can be streamed from object storage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.decode import image_size, read_bytes
from datamodules.pipeline.folder import ImageFolder, Listing
from datamodules.pipeline.resumable import check_std
from datamodules.pipeline.shards import DESCRIPTION
from datamodules.pipeline.splits import split
from datamodules.pipeline.statistics import photo_statistics


def shard(source: str, dest: str, val_fraction: float = 0.1, chunk_megabytes: int = 64, num_workers: int = 2) -> None:
    """Write the photos below SOURCE to DEST as litdata shards for ``datamodules.PhotoStream``; they stay encoded.

    Args:
        source: folder with ``train/<class>/``, ``val/<class>/`` and ``test/<class>/``, as for ``datamodules.Photos``.
        dest: new folder, to be copied to a bucket unchanged.
        val_fraction: share of the training images that becomes the validation part, by class, unless ``val/`` is it.
        chunk_megabytes: size of a shard.
        num_workers: number of writing processes.
    """
    try:
        from litdata import optimize
    except ModuleNotFoundError as error:
        raise MisconfigurationException("Writing shards needs litdata: pip install 'fathom-depth[stream]'.") from error
    target = Path(dest)
    if target.exists() and any(target.iterdir()):
        raise MisconfigurationException(f"{dest} is not empty; give a new folder.")
    folder = ImageFolder(source)
    train, val = split(folder.training.labels, val_fraction, held_out=folder.held_out)
    statistics = photo_statistics(folder.only_training)
    check_std(tuple(statistics["mean"].tolist()), tuple(statistics["std"].tolist()))
    parts = {"train": _items(folder.training, train.tolist()), "val": _items(folder.training, val.tolist()), "test": []}
    if folder.has_test:
        test = folder.test()
        parts["test"] = _items(test, list(range(len(test.files))))
    for part, inputs in parts.items():
        if inputs:
            optimize(
                fn=_sample,
                inputs=inputs,
                output_dir=str(target / part),
                chunk_bytes=f"{chunk_megabytes}MB",
                num_workers=num_workers,
                verbose=False,
            )
    description = {
        "class_names": folder.class_names,
        "images": {part: len(inputs) for part, inputs in parts.items()},
        "mean": statistics["mean"].tolist(),
        "std": statistics["std"].tolist(),
    }
    (target / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    print(f"{target}: {', '.join(f'{len(inputs)} {part}' for part, inputs in parts.items())} images")


def _items(listing: Listing, indices: list[int]) -> list[tuple[str, int, int]]:
    return [(str(listing.root / listing.files[i]), int(listing.labels[i]), i) for i in indices]


def _sample(item: tuple[str, int, int]) -> dict[str, Any]:
    path, label, index = item
    data = read_bytes(path)
    image_size(data, path)  # a file that is no image is named now, not in the middle of training
    # As bytes: litdata would take a string that ends in .jpg for the picture itself, and store that once more.
    return {"image": data, "label": label, "index": index, "name": os.fsencode(path)}
