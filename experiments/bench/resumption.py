"""What it costs that a run can be resumed bit for bit, beside a Trainer that saves nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Literal

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks import LastCheckpoint, Reseeding
from callbacks.run.run_summary import hardware
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.timing import (
    PRECISIONS,
    Precision,
    StepTimer,
    in_turn,
    ratio_and_spread,
    silence,
)
from experiments.device import best_device, real_precision
from experiments.runs.metrics_csv import MetricsCSV
from lit_models import CIFARResNet, ImageClassifier
from lit_models.checkpoints import AtomicCheckpointIO

Contender = Literal["bare Trainer", "resumable"]


def resumption(
    depth: PositiveInt = 20,
    batch_size: PositiveInt = 128,
    every_n_steps: PositiveInt = 200,
    precisions: tuple[Precision, ...] = PRECISIONS,
    rounds: PositiveInt = 40,
    steps: PositiveInt = 8,
) -> None:
    """Time steps of a Trainer without callbacks and loggers, and of one whose run can be resumed.

    The latter reseeds in every step, logs to metrics.csv every tenth, and writes one checkpoint in each turn, whose
    time is shared out over ``every_n_steps``. Both train the same network on the same random images of 32 pixels, in
    turns, and a ratio is taken within the round.

    Args:
        depth: of the CIFAR ResNet that is trained.
        batch_size: images in a step.
        every_n_steps: steps between checkpoints.
        precisions: of both; a table for each.
        rounds: turns of each.
        steps: that are timed in a turn, beside the one with the checkpoint.
    """
    silence()
    keep_freed_memory()  # as the data modules do in a run
    for precision in precisions:
        _measure(depth, batch_size, every_n_steps, precision, rounds, steps)


def _measure(depth: int, batch_size: int, every_n_steps: int, precision: Precision, rounds: int, steps: int) -> None:
    images = torch.randn(batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = images.to(memory_format=torch.channels_last), torch.arange(batch_size) % 10
    contenders: tuple[Contender, ...] = ("bare Trainer", "resumable")
    modules = {name: ImageClassifier(CIFARResNet(depth), 10, schedule="constant") for name in contenders}
    seconds: dict[Contender, list[float]] = {name: [] for name in contenders}
    saves: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in track(range(rounds + 1), "rounds", console=Console(stderr=True)):
            for name in in_turn(contenders, number):
                timer = StepTimer()
                _fit(modules[name], [batch] * (steps + 3), timer, name == "resumable", Path(folder), precision)
                _, *others, with_save = timer.seconds  # the first warms up
                share = (with_save - median(others)) / every_n_steps if name == "resumable" else 0.0
                if number:
                    seconds[name].append(mean(others) + share)
                    saves += [with_save - median(others)] if name == "resumable" else []
    device = hardware(best_device())
    table = Table(
        title=f"ResNet-{depth}, batch {batch_size}, {real_precision(precision)}, {device},"
        f" {rounds} rounds of {steps} steps, a checkpoint ({1000 * median(saves):.0f} ms) every {every_n_steps}",
        title_justify="left",
    )
    for column in ("", "ms a step", "time", "fastest–slowest round"):
        table.add_column(column, justify="right" if column else "left")
    for name in contenders:
        row = ratio_and_spread(seconds[name], seconds["bare Trainer"]) if name == "resumable" else ()
        table.add_row(name, f"{1000 * median(seconds[name]):.1f}", *row)
    Console(width=140).print(table)


def _fit(
    module: ImageClassifier,
    batches: list[tuple[Tensor, Tensor]],
    timer: StepTimer,
    resumable: bool,
    folder: Path,
    precision: Precision,
) -> None:
    # One checkpoint, before the last but one of the steps: see the caller.
    callbacks = [LastCheckpoint(every_n_steps=len(batches) - 2), Reseeding()] if resumable else []
    trainer = L.Trainer(
        max_steps=len(batches),
        default_root_dir=folder,
        precision=precision,
        logger=MetricsCSV(folder) if resumable else False,
        plugins=[AtomicCheckpointIO()] if resumable else None,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        callbacks=[timer, *callbacks],
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
