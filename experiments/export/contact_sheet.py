"""Many small images on one."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lit_models.files import atomic

_SIDE, _CAPTION, _GAP = 160, 16, 6


def contact_sheet(images: list[np.ndarray], captions: list[str], path: Path) -> str:
    """Write a PNG of captioned images, in rows.

    Args:
        images: uint8 (H, W, 1) or (H, W, 3).
        captions: one for each image. A letter that no font of the system has becomes a dot.
        path: file to write.

    Returns:
        The letters that became dots.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (_SIDE + _GAP), rows * (_SIDE + _CAPTION + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font, missing = _font_for({letter for caption in captions for letter in caption})
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = place % columns * (_SIDE + _GAP), place // columns * (_SIDE + _CAPTION + _GAP)
        picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        sheet.paste(picture.resize((_SIDE, _SIDE)), (left, top))
        text = "".join("·" if letter in missing else letter for letter in caption)
        while draw.textlength(text, font) > _SIDE:
            text = text[:-1]
        draw.text((left, top + _SIDE + 1), text, "black", font)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    with atomic(path, "wb") as file:
        file.write(content.getvalue())
    return "".join(sorted(missing))


def _font_for(letters: set[str]) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, set[str]]:
    """The built-in font where it has all letters, otherwise the font of the system that lacks the fewest, and those."""
    if all(ord(letter) < 256 for letter in letters):  # the built-in one has Latin-1
        return ImageFont.load_default(11), set()
    from experiments.fonts import font_for  # not at the top: matplotlib looks for all fonts

    path, missing = font_for(letters)
    return ImageFont.truetype(path, 11), missing
