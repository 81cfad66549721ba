"""Photos with boxes and masks beside torchvision's pipelines, and steps of detector and segmenter beside its models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.segmentation import fcn_resnet50
from torchvision.transforms import v2

from callbacks.run.run_summary import hardware
from datamodules import SegmentationFolder, VOCDetection
from datamodules.pipeline.allocator import keep_freed_memory
from datamodules.pipeline.masks import VOID
from experiments.bench.bare_loop import autocast
from experiments.bench.data import Pass, compare, count_images
from experiments.bench.timing import PRECISIONS, Precision, in_turn, now, ratio_and_spread
from experiments.device import best_device, real_precision
from lit_models import FCN, FasterRCNN, ResNet
from lit_models.interfaces import LogitsWithAux

STATISTICS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLASSES = 20


def transfer(
    detection: Path | None = None,
    segmentation: Path | None = None,
    image_size: PositiveInt = 160,
    batch_size: PositiveInt = 2,
    precisions: tuple[Precision, ...] = PRECISIONS,
    rounds: PositiveInt = 5,
) -> None:
    """Time input pipelines of photos with boxes and masks, and training steps, beside torchvision's, in turns.

    Args:
        detection: folder of detection_bccd's data, for the pipeline of boxes.
        segmentation: folder of segmentation_camvid's data, for that of masks.
        image_size: side of the random images of a training step.
        batch_size: number of these.
        precisions: of the steps; a table for each.
        rounds: how often each is measured.
    """
    keep_freed_memory()  # as the data modules do in a run
    if detection is not None:
        title = "Boxes: short side 240, flip, uint8 on one canvas (one process)"
        compare(title, _boxes(detection), rounds)
    if segmentation is not None:
        title = "Masks: scale jitter, crop of 180, flip, uint8 (one process)"
        compare(title, _masks(segmentation), rounds)
    for precision in precisions:
        _time_steps(image_size, batch_size, precision, rounds)


def _time_steps(image_size: int, batch_size: int, precision: Precision, rounds: int) -> None:
    device = best_device()
    contenders = _steps(image_size, batch_size, precision, device)
    for number in range(rounds + 1):
        for contender in in_turn(contenders, number):
            start = now(device)
            contender.step()
            if number:  # the first one allocates
                contender.seconds.append(now(device) - start)
    title = (
        f"Step of training, {batch_size} images of {image_size} pixels, {real_precision(precision)},"
        f" {hardware(device)}, {rounds} rounds"
    )
    Console(width=120).print(_table(title, contenders))


class _Photos(Dataset[Any]):
    """Photos through torchvision's transforms, with what ``target`` makes for the photo of an index and its size."""

    def __init__(self, root: Path, files: list[str], target: Callable[[int, Image.Image], Any], transform: Any) -> None:
        self.paths = [root / file for file in files]
        self.target = target
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index]) as image:
            photo = image.convert("RGB")
        return self.transform(photo, self.target(index, photo))


def _boxes(folder: Path) -> dict[str, Pass]:
    parts = {"train": ["VOC2007/train"], "test": ["VOC2007/test"]}
    ours = VOCDetection(str(folder), **parts, image_size=240, max_size=320, batch_size=8, **STATISTICS)
    objects = ours.training[0]

    def target(index: int, photo: Image.Image) -> Any:
        boxes = objects.boxes[objects.of(index)].clone()
        return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(photo.height, photo.width))

    def on_one_canvas(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
        height, width = (-(-max(image.shape[axis] for image, _ in samples) // 32) * 32 for axis in (1, 2))
        canvas = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
        for place, (image, _) in zip(canvas, samples, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return canvas, [boxes for _, boxes in samples]

    steps = [v2.Resize(240, max_size=320, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    photos = _Photos(objects.root, objects.files, target, v2.Compose(steps))
    theirs: DataLoader[Any] = DataLoader(photos, batch_size=8, shuffle=True, collate_fn=on_one_canvas)
    loader = ours.train_dataloader()
    return {
        "torchvision v2 on PIL": lambda: count_images(theirs),
        "fathom": lambda: sum(len(batch.images) for batch in loader),
    }


def _masks(folder: Path) -> dict[str, Pass]:
    names = [str(number) for number in range(11)]
    options: dict[str, Any] = {"image_size": 180, "base_size": 240, "scale": (0.75, 1.5), "void": [11, VOID]}
    ours = SegmentationFolder(str(folder), names, batch_size=8, val=None, **options, **STATISTICS)
    part = ours.list_part("train.txt")

    def target(index: int, photo: Image.Image) -> Any:
        with Image.open(part.root / part.masks[index]) as mask:
            return tv_tensors.Mask(mask)

    fill = {tv_tensors.Mask: VOID, "others": 0}
    steps = [
        v2.ScaleJitter((240, 240), (0.75, 1.5), antialias=True),
        v2.RandomCrop(180, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
    ]
    photos = _Photos(part.root, part.images, target, v2.Compose(steps))
    theirs: DataLoader[Any] = DataLoader(photos, batch_size=8, shuffle=True)
    loader = ours.train_dataloader()
    return {
        "torchvision v2 on PIL": lambda: count_images(theirs),
        "fathom": lambda: sum(len(batch.images) for batch in loader),
    }


@dataclass
class _Contender:
    name: str
    step: Callable[[], None]
    reference: str = ""
    seconds: list[float] = field(default_factory=list)


def _steps(side: int, count: int, precision: Precision, device: torch.device) -> list[_Contender]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, side, side, generator=generator).to(device).to(memory_format=torch.channels_last)
    corners = torch.rand(count, 4, 2, generator=generator) * side / 2
    boxes = torch.cat((corners, corners + side / 3), 2).to(device)
    labels = torch.arange(4, device=device)
    masks = torch.randint(CLASSES + 1, (count, side, side), generator=generator).to(device)
    objects = [{"boxes": of_image, "labels": labels} for of_image in boxes]
    sizes = [(side, side)] * count
    context = autocast(precision, device)

    def trained(net: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
        net = net.to(device).to(memory_format=torch.channels_last).train()
        optimizer = SGD(net.parameters(), lr=1e-4, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            with context():
                value = loss(net)
            value.backward()
            optimizer.step()

        return step

    def total(losses: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(losses.values())).sum()

    def segmentation_loss(net: nn.Module) -> Tensor:
        output = net(images)
        both = (output.logits, *output.aux_logits) if isinstance(output, LogitsWithAux) else output.values()
        first, second = both
        return cross_entropy(first.float(), masks) + 0.5 * cross_entropy(second.float(), masks)

    theirs = [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in objects]
    detector = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        trainable_backbone_layers=5,
        min_size=side,
        max_size=side,
    )
    segmenter = fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES + 1, aux_loss=True)
    return [
        _Contender("torchvision fasterrcnn_resnet50_fpn", trained(detector, lambda net: total(net([*images], theirs)))),
        _Contender(
            "FasterRCNN",
            trained(FasterRCNN(ResNet(50), CLASSES), lambda net: total(net(images, sizes, objects))),
            "torchvision fasterrcnn_resnet50_fpn",
        ),
        _Contender("torchvision fcn_resnet50", trained(segmenter, segmentation_loss)),
        _Contender("FCN", trained(FCN(ResNet(50), CLASSES + 1), segmentation_loss), "torchvision fcn_resnet50"),
    ]


def _table(title: str, contenders: list[_Contender]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "ms a step", "compared with", "ratio", "fastest–slowest round"):
        table.add_column(column, justify="left" if column in ("", "compared with") else "right")
    seconds = {contender.name: contender.seconds for contender in contenders}
    for one in contenders:
        ratio = ratio_and_spread(one.seconds, seconds[one.reference]) if one.reference else ("", "")
        table.add_row(one.name, f"{1000 * median(one.seconds):.0f}", one.reference, *ratio)
    return table
