"""Whether a file gives the logits of the network that was exported."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.pipeline.image_data import ImageData
from experiments.errors import UsageError
from experiments.export.subject import Subject
from experiments.export.trained import Trained

BATCHES = (1, 4, 7)

Case = tuple[Tensor, Tensor]
"""What a file is given, and the logits it should give."""


class Difference(NamedTuple):
    """The largest one over all cases."""

    absolute: float
    relative: float
    """To the largest logit."""


def real_images(data: ImageData, number: int) -> Tensor:
    """uint8 (N, H, W, C): test images, or validation images where there is no test part, as evaluation cuts them."""
    data.num_workers = 0
    data.prepare_data()
    try:
        loader = data.sample_loader(number)
    except MisconfigurationException:  # there is no test part
        loader = data.val_dataloader()
    parts: list[Tensor] = []
    for batch in loader:
        parts.append(batch.images)
        if sum(map(len, parts)) >= number:
            break
    if not parts:
        raise UsageError("the run has no test and no validation images: give --data with some to compare on")
    return torch.cat(parts)[:number]


@torch.inference_mode()
def cases(subject: Subject, sides_are_free: bool) -> list[Case]:
    """Batches of 1, 4 and 7 normalised images, and one twice as high."""
    numbers = torch.arange(sum(BATCHES)) % len(subject.images)  # a small validation part has fewer
    batches = list(subject.images[numbers].split(list(BATCHES)))
    if sides_are_free:
        height, width = subject.images.shape[2:]
        batches.append(interpolate(subject.images[:2], (2 * height, width), mode="bilinear"))
    return [(batch, subject.net(batch)) for batch in batches]


@torch.inference_mode()
def pixel_cases(subject: Subject, raw: Tensor) -> list[Case]:
    """The images as files have them, of several sizes, and the logits of the evaluation of such files."""
    side = subject.trained.geometry.image_size
    found = []
    sizes = (side, side), (side * 2, side * 3), (side * 3 // 2, side)
    for batch, (height, width) in zip(BATCHES, sizes, strict=True):
        images = interpolate(raw[:batch].permute(0, 3, 1, 2).float(), (height, width), mode="bicubic", antialias=True)
        pixels = images.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
        evaluated = torch.stack([_evaluated(subject.trained, image) for image in pixels])
        found.append((pixels, subject.net(subject.trained.images(evaluated))))
    return found


def _evaluated(trained: Trained, pixels: Tensor) -> Tensor:
    """uint8 (H, W, C), by way of a file."""
    content = io.BytesIO()
    array: Any = pixels.squeeze(2).numpy() if pixels.shape[2] == 1 else pixels.numpy()
    Image.fromarray(array).save(content, "PNG")
    return trained.geometry(content.getvalue(), "image")


@torch.inference_mode()
def difference(network: Callable[[Tensor], Tensor], compared: list[Case]) -> Difference:
    """Of ``network``, which a file was read as, from the expected logits; infinite where a logit is not finite."""
    largest = Difference(0.0, 0.0)
    for images, expected in compared:
        logits = network(images)
        absolute = (logits - expected).abs().max().item() if logits.shape == expected.shape else float("inf")
        if not absolute < float("inf"):
            return Difference(float("inf"), float("inf"))
        scale = expected.abs().max().item()
        largest = Difference(max(largest.absolute, absolute), max(largest.relative, absolute / max(scale, 1e-12)))
    return largest
