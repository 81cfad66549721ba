"""From an image file of any size to what evaluation shows a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.pipeline.crops import Interpolation, centre_crop
from datamodules.pipeline.decode import MAX_PIXELS, decode


@dataclass(frozen=True)
class Geometry:
    """Decodes an image file and brings it to the size of the network: uint8 (image_size, image_size, channels).

    Args:
        image_size: side in pixels.
        crop_ratio: the short side is resized to ``image_size / crop_ratio`` and the centre cut out, see
            :func:`~datamodules.pipeline.crops.centre_crop`; ``None`` resizes both sides, whatever the aspect.
        interpolation: of the resize, with antialiasing.
        channels: 3, or 1 for the luma of a picture in colour.
        max_pixels: see :func:`~datamodules.pipeline.decode.decode`.
    """

    image_size: int
    crop_ratio: float | None = None
    interpolation: Interpolation = "bilinear"
    channels: int = 3
    max_pixels: int = MAX_PIXELS

    def __call__(self, data: bytes, name: str) -> Tensor:
        """The image of the encoded ``data``. Raises ``DecodeError``, which names it."""
        if self.crop_ratio is not None:
            return centre_crop(data, name, self.image_size, self.crop_ratio, self.interpolation, self.max_pixels)
        image = decode(data, name, max_pixels=self.max_pixels)
        if self.channels == 1:
            image = np.asarray(Image.fromarray(image).convert("L"))
        return torch.from_numpy(squash(image, self.image_size)).view(self.image_size, self.image_size, self.channels)


def squash(image: np.ndarray, side: int) -> np.ndarray:
    """Resize both sides of a uint8 image (H, W) or (H, W, 3), bilinearly and antialiased; a copy."""
    if image.shape[:2] == (side, side):
        return image.copy()
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
