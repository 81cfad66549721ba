"""Every picture that Pillow reads is decoded, turned as viewers turn it; everything else is named."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from datamodules.pipeline.crops import centre_crop, random_resized_crop
from datamodules.pipeline.decode import DecodeError, decode, image_size

RNG = np.random.default_rng(0)
RGB = np.repeat(np.repeat(RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8), 16, 0), 16, 1)  # 64×96, smooth for JPEG


def encode(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(RGB)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_phone_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(kind, exif=exif)
    image, expected = decode(data, "x"), with_pillow(data)
    assert image.shape == expected.shape == (*image_size(data, "x"), 3)
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).max() <= (8 if kind == "JPEG" else 0)
    # The crops of training and evaluation see the image upright.
    straight = encode("PNG", Image.fromarray(expected))
    draws = np.full(22, 0.4, np.float32)
    for crop in (
        lambda data: random_resized_crop(data, "x", draws, 16, (0.5, 1.0), (0.75, 1.33), "bilinear"),
        lambda data: centre_crop(data, "x", 32, 0.875, "bilinear"),
    ):
        difference = (crop(data).int() - crop(straight).int()).abs().float()  # a JPEG is decoded at a smaller scale
        assert difference.mean() <= (12 if kind == "JPEG" else 0)


def test_a_large_turned_photo_is_decoded_no_smaller_than_needed():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode("JPEG", Image.fromarray(RGB).resize((960, 640)), exif=exif)
    assert decode(data, "x", min_height=400, min_width=10).shape == (480, 320, 3)


def test_exif_is_found_behind_the_longest_segment():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode("JPEG", exif=exif)
    profile = b"\xff\xe2\xff\xff" + bytes(0xFFFD)
    late = data[:2] + profile + data[2:]
    assert image_size(late, "x") == (96, 64)
    assert np.array_equal(decode(late, "x"), decode(data, "x"))


def stray_bytes(data: bytes) -> bytes:
    """As some cameras write them, before the end of the image."""
    return data[:-2] + b"\x00\x00\x00\x00" + data[-2:]


ACCEPTED = {
    "stray bytes before a marker": stray_bytes(encode("JPEG")),
    "rubbish after the end": encode("JPEG") + b"rubbish",
    "EXIF that is none": encode("JPEG", exif=b"Exif\0\0rubbish"),
    "MPO": encode("MPO", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "JPEG 2000": encode("JPEG2000"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_pillow_reads_is_accepted(name):
    data = ACCEPTED[name]
    assert np.abs(decode(data, name).astype(int) - np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).max() <= 8


def claims(kind: str, side: int) -> bytes:
    """A tiny file whose header says that the image is ``side`` pixels wide and high."""
    data = bytearray(encode(kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif kind == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    else:
        data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_one_limit_on_pixels_holds_for_every_decoder(kind):
    for size in (65000, 20000):
        for read in (decode, image_size):
            with pytest.raises(
                DecodeError, match=rf"x is not a whole image: it claims {size}×{size} pixels, more than"
            ):
                read(claims(kind, size), "x")
    assert decode(encode(kind), "x", max_pixels=64 * 96).shape == (64, 96, 3)
    with pytest.raises(DecodeError, match="more than max_pixels=6143"):
        decode(encode(kind), "x", max_pixels=64 * 96 - 1)


def float_tiff() -> bytes:
    return encode("TIFF", Image.fromarray(RNG.random((8, 8), dtype=np.float32)))


def cut(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


REFUSED = {
    "floating point": (float_tiff(), "its pixels are floating-point numbers"),
    "32 bits": (encode("TIFF", Image.fromarray(np.full((8, 8), 70_000, np.int32))), "do not fit into 16 bits"),
    "QOI": (b"qoif" + struct.pack(">II", 9, 9) + b"\x03\x00\xc0", ""),
    "truncated JPEG": (cut(encode("JPEG"), 0.8), "Premature end"),
    "truncated JPEG by a little": (encode("JPEG")[:-20], "Premature end"),
    "truncated PNG": (cut(encode("PNG")), ""),
    "truncated AVIF": (cut(encode("AVIF")), ""),
    "truncated WEBP": (cut(encode("WEBP")), ""),
    "truncated JPEG 2000": (cut(encode("JPEG2000"), 0.1), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_read_is_named(name):
    data, reason = REFUSED[name]
    with pytest.raises(DecodeError, match=rf"^{name} is not a whole image: .*{reason}.*; replace or remove it\.$"):
        decode(data, name)


@pytest.mark.parametrize("error", [IndexError("at 3"), RuntimeError("decoder"), MemoryError(), TypeError("none")])
def test_whatever_a_decoder_raises_is_named(monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("datamodules.pipeline.decode.Image.open", fail)
    for read in (decode, image_size):
        with pytest.raises(DecodeError, match=r"^x is not a whole image: .+; replace"):
            read(b"BM", "x")
