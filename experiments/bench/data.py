"""``fathom bench data``: images per second of the input pipelines, beside torchvision's, in one run."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
import torch
from jsonargparse.typing import PositiveInt
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from datamodules import Photos
from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.in_memory import InMemoryImages

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def data(photos: str | None = None, images: PositiveInt = 20_000, rounds: PositiveInt = 7) -> None:
    """Print images/s of the input pipelines beside torchvision's and beside their floors.

    Everything is measured in turn, ``rounds`` times; a ratio is the median of the rounds' ratios, with the least and
    the greatest.

    Args:
        photos: folder with train/CLASS/ of JPEG photos for the second table (default: only the first).
        images: how many 32×32 images of random pixels make the first table's data set.
        rounds: how often each is measured.
    """
    keep_freed_memory()  # as the data modules do in a run
    compare(
        f"32×32 pixels, crop with padding 4, flip, normalise ({torch.get_num_threads()} threads)",
        _small(images),
        rounds,
    )
    if photos is not None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            uint8, normalised = _photos(photos)
            title = "Photos, random resized crop to 224, flip, uint8 batches (CPU time of one process, one thread)"
            compare(title, uint8, rounds, time.process_time)
            compare("The same, normalised on the CPU", normalised, rounds, time.process_time)
        finally:
            torch.set_num_threads(threads)


Pass = Callable[[], int]
"""Serves every image once and returns their number."""


def compare(title: str, passes: dict[str, Pass], rounds: int, clock: Callable[[], float] = time.perf_counter) -> None:
    rates: dict[str, list[float]] = {name: [] for name in passes}
    for round_number in range(rounds + 1):
        for name, serve in passes.items():
            start = clock()
            count = serve()
            if round_number:  # the first one starts workers and fills caches
                rates[name].append(count / (clock() - start))
    base = next(iter(rates))
    print(
        f"{title}; {rounds} rounds\n\n"
        "| pipeline | images/s, median | of the first (least to greatest) |\n| --- | --- | --- |"
    )
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(values, rates[base], strict=True)]
        print(f"| {name} | {median(values):,.0f} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
    print()


def count_images(batches: Iterable[Any]) -> int:
    return sum(len(batch[0]) for batch in batches)


class RandomPixels(InMemoryImages):
    """Small images of noise, of ten classes."""

    num_classes, in_channels, image_size = 10, 3, 32
    mean, std, class_names = MEAN, STD, [str(i) for i in range(10)]

    def __init__(self, count: int, **options: Any) -> None:
        super().__init__(**({"batch_size": 512, "val_fraction": 0} | options))
        self.count = count

    def read(self, test: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        size = (self.count, 32, 32, 3)
        return torch.randint(256, size, generator=generator, dtype=torch.uint8), torch.arange(self.count) % 10


class _Transformed(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Tensor, transform: v2.Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), 0


def torchvision_loader(images: Tensor, batch_size: int, augment: bool = True) -> DataLoader[Any]:
    """A loader with torchvision's transforms in two workers: normalised images (N, 3, 32, 32) and labels.

    Args:
        images: uint8 (N, 3, 32, 32).
        batch_size: images in a batch.
        augment: shuffle, crop and mirror.
    """
    random = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()] if augment else []
    transform = v2.Compose([*random, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    data = _Transformed(images, transform)
    return DataLoader(data, batch_size=batch_size, shuffle=augment, num_workers=2, persistent_workers=True)


def _small(count: int) -> dict[str, Pass]:
    ours = RandomPixels(count)
    images, _ = ours.part(test=False)
    loader = ours.train_dataloader()
    theirs = torchvision_loader(images.permute(0, 3, 1, 2).contiguous(), 512)
    # The floor: nothing but a lookup of windows, with padding and both mirror images stored.
    padded = torch.nn.functional.pad(images, (0, 0, 4, 4, 4, 4))
    mirrored = torch.stack((padded, padded.flip(2)), 1).view(count, 2, 40, 120)
    windows = mirrored.unfold(2, 32, 1).unfold(3, 96, 3)

    def lookup() -> int:
        for rows in torch.randperm(count).split(512):
            draws = torch.randint(9, (2, len(rows)))
            windows[rows, torch.randint(2, (len(rows),)), draws[0], draws[1]]
        return count

    return {
        "torchvision v2, DataLoader with 2 workers": lambda: count_images(theirs),
        "fathom, in the main process": lambda: count_images(ours.on_after_batch_transfer(batch, 0) for batch in loader),
        "floor: lookup of stored windows, uint8": lookup,
    }


def _photos(root: str) -> tuple[dict[str, Pass], dict[str, Pass]]:
    ours = Photos(root, batch_size=64, num_workers=0, val_fraction=0, mean=MEAN, std=STD)
    loader = ours.train_dataloader()
    crop = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    to_float = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]

    def theirs(transform: v2.Transform) -> DataLoader[Any]:
        return DataLoader(ImageFolder(str(Path(root) / "train"), transform), batch_size=64, shuffle=True)

    uint8, normalised = theirs(v2.Compose(crop)), theirs(v2.Compose(crop + to_float))
    files = [path.read_bytes() for path in (Path(root) / "train").rglob("*.jpg")]

    def decode(decoder: Callable[[bytes], np.ndarray]) -> Pass:
        return lambda: sum(decoder(file).ndim == 3 for file in files)

    handed_over: dict[str, Pass] = {
        "torchvision v2 on PIL": lambda: count_images(uint8),
        "fathom": lambda: count_images(loader),
        "JPEG decoded in full by libjpeg-turbo": decode(lambda file: simplejpeg.decode_jpeg(file, "RGB")),
        "JPEG decoded in full by PIL": decode(lambda file: np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))),
    }
    finished: dict[str, Pass] = {
        "torchvision v2 on PIL": lambda: count_images(normalised),
        "fathom": lambda: count_images(ours.on_after_batch_transfer(batch, 0) for batch in loader),
    }
    return handed_over, finished
