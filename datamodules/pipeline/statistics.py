"""Mean and standard deviation of photos of any size."""

from __future__ import annotations

from typing import Literal

import numpy as np

from datamodules.pipeline.decode import MAX_PIXELS, DecodeError, decode, read_bytes
from datamodules.pipeline.folder import Listing

Corrupt = Literal["stop", "skip"]
"""What is done about a broken photo."""

_STATISTICS_IMAGES = 10_000


def photo_statistics(
    listing: Listing, corrupt: Corrupt = "stop", max_pixels: int = MAX_PIXELS
) -> dict[str, np.ndarray]:
    """Mean and standard deviation per channel, in [0, 1]; each photo has an equal weight, whatever its size.

    Of more than 10,000 photos every k-th is taken.

    Raises:
        DecodeError: a photo is broken, or, with ``corrupt="skip"``, all of them are.
    """
    every = -(-len(listing.files) // _STATISTICS_IMAGES)
    moments = []
    for file in listing.files[::every]:
        path = str(listing.root / file)
        try:
            pixels = decode(read_bytes(path), path, max_pixels=max_pixels).reshape(-1, 3)
        except DecodeError:
            if corrupt == "stop":
                raise
            continue
        counts = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T]) / len(pixels)
        values = np.arange(256) / 255
        moments.append((counts @ values, counts @ values**2))
    if not moments:
        raise DecodeError(f"all photos below {listing.root} are broken; replace them.")
    mean, square = np.mean(moments, axis=0)
    return {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0))}
