"""``fathom bench epoch``: an epoch of training on small images and its validation, beside plain PyTorch with
torchvision's transforms in two workers.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from callbacks import Compile
from callbacks.run.run_summary import hardware
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.bare_loop import BareLoop
from experiments.bench.data import RandomPixels, torchvision_loader
from experiments.bench.step import every_run
from experiments.bench.timing import PRECISIONS, Precision, in_turn, now, ratio_and_spread, silence
from experiments.device import best_device, real_precision
from experiments.runs.metrics_csv import MetricsCSV
from lit_models import CIFARResNet, ImageClassifier

PLAIN = "plain PyTorch, torchvision v2 in 2 workers"


def epoch(
    depth: PositiveInt = 20,
    images: PositiveInt = 11_520,
    batch_size: PositiveInt = 128,
    precisions: tuple[Precision, ...] = PRECISIONS,
    rounds: PositiveInt = 5,
    backend: str = "inductor",
) -> None:
    """Time epochs of plain PyTorch, of a run and of a compiled run, in turns.

    All train the same network on random images of 32 pixels, cropped with a padding of 4 and flipped, and validate it
    on a tenth of them. All batches have the same size. The floor is the plain loop on batches that are there. A round
    before the first compiles and starts the workers.

    Args:
        depth: of the CIFAR ResNet that is trained.
        images: of training and validation.
        batch_size: images in a step.
        precisions: of all; a table for each.
        rounds: epochs of each.
        backend: of torch.compile.
    """
    silence()
    keep_freed_memory()  # as the data modules do in a run
    device = best_device()
    for precision in precisions:
        seconds: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            contenders = _contenders(depth, images, batch_size, precision, device, Path(folder), backend)
            for number in track(range(rounds + 1), "rounds", console=Console(stderr=True)):
                for name in in_turn(list(contenders), number):
                    took = contenders[name]()
                    if number:
                        seconds.setdefault(name, []).append(took)
        title = (
            f"ResNet-{depth}, {images:,} images, batch {batch_size}, {real_precision(precision)}, {hardware(device)},"
            f" {rounds} rounds"
        )
        table = Table("", "seconds", "times as fast", "slowest–fastest round", title=title, title_justify="left")
        for name in contenders:
            row = () if name == PLAIN else ratio_and_spread(seconds[PLAIN], seconds[name])
            table.add_row(name, f"{median(seconds[name]):.2f}", *row)
        Console(width=140).print(table)


def _contenders(
    depth: int, images: int, batch_size: int, precision: Precision, device: torch.device, folder: Path, backend: str
) -> dict[str, Callable[[], float]]:
    data = RandomPixels(images, batch_size=batch_size, val_fraction=0.1, equal_batches=True)
    pixels = data.read(test=False)[0].permute(0, 3, 1, 2).contiguous()
    training = images * 9 // 10
    loaders = (
        torchvision_loader(pixels[:training], batch_size),
        torchvision_loader(pixels[training:], batch_size, augment=False),
    )
    batch = (torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last), torch.arange(batch_size) % 10)
    ready = [batch] * (training // batch_size), [batch] * ((images - training) // batch_size)

    def module() -> ImageClassifier:
        torch.manual_seed(0)
        return ImageClassifier(CIFARResNet(depth), 10, schedule="constant")

    def plain(loop: BareLoop, batches: tuple[Any, Any]) -> float:
        start = now(device)
        loop.train(batches[0])
        loop.validate(batches[1])
        return now(device) - start

    return {
        PLAIN: partial(plain, BareLoop(module().net, precision, device), loaders),
        "floor: its steps alone": partial(plain, BareLoop(module().net, precision, device), ready),
        "run": partial(_fit, module(), data, precision, folder, []),
        "run, compiled": partial(_fit, module(), data, precision, folder, [Compile(backend)]),
    }


def _fit(
    module: ImageClassifier, data: RandomPixels, precision: Precision, folder: Path, extra: list[L.Callback]
) -> float:
    timer = _EpochTimer()
    trainer = L.Trainer(
        max_epochs=1,
        default_root_dir=folder,
        precision=precision,
        logger=MetricsCSV(folder),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        callbacks=[*every_run(), *extra, timer],
    )
    with redirect_stdout(io.StringIO()):  # the progress bar has the screen to itself in a run
        trainer.fit(module, data)
    return timer.seconds


class _EpochTimer(L.Callback):
    """Seconds of an epoch, validation and checkpoints included."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = now(pl_module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = now(pl_module.device) - self._start
