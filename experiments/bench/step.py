"""What Lightning, the callbacks of every run, averaged weights, distillation and compilation do to a step of training,
in one run.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from callbacks import (
    BestCheckpoint,
    Compile,
    LastCheckpoint,
    Reseeding,
    RunSummary,
    StopOnNonFinite,
    WeightAveraging,
)
from callbacks.run.run_summary import hardware
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.bare_loop import BareLoop, Batch, autocast
from experiments.bench.timing import (
    PRECISIONS,
    Precision,
    StepTimer,
    in_turn,
    now,
    ratio_and_spread,
    silence,
)
from experiments.device import best_device, real_precision
from experiments.runs.metrics_csv import MetricsCSV
from lit_models import CIFARResNet, Distillation, ImageClassifier
from lit_models.checkpoints import classifier_checkpoint, write_atomically
from lit_models.tasks.teacher import load_teacher


@dataclass
class Contender:
    """What is timed, and against what."""

    name: str
    turn: Callable[[int], float]
    """Runs a number of steps and returns the mean seconds of one."""
    reference: tuple[str, ...] = ()
    """Names of the contenders whose times add up to the one this is compared with."""
    seconds: list[float] = field(default_factory=list)


def step(
    depth: PositiveInt = 20,
    teacher_depth: PositiveInt = 56,
    batch_size: PositiveInt = 128,
    precisions: tuple[Precision, ...] = PRECISIONS,
    rounds: PositiveInt = 10,
    steps: PositiveInt = 8,
    backend: str = "inductor",
) -> None:
    """Time training steps of a bare PyTorch loop, of Lightning's Trainer and of runs, side by side.

    A run is timed as it is, compiled, with averaged weights and with a teacher. All train the same network on the same
    random images of 32 pixels, in turns. A round times some steps of each, and a ratio is taken within the round. A run
    has the callbacks of every run and the CSV logger, not Weights & Biases.

    Args:
        depth: of the CIFAR ResNet that is trained.
        teacher_depth: of its teacher.
        batch_size: images in a step.
        precisions: of all; a table for each.
        rounds: turns of each.
        steps: that are timed in a turn.
        backend: of torch.compile.
    """
    silence()
    keep_freed_memory()  # as the data modules do in a run
    for precision in precisions:
        _measure(depth, teacher_depth, batch_size, precision, rounds, steps, backend)


def _measure(
    depth: int, teacher_depth: int, batch_size: int, precision: Precision, rounds: int, steps: int, backend: str
) -> None:
    device = best_device()
    images = torch.randn(batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = images.to(memory_format=torch.channels_last), torch.arange(batch_size) % 10
    with tempfile.TemporaryDirectory() as folder:
        contenders = _contenders(depth, teacher_depth, batch, precision, device, Path(folder), backend)
        for contender in contenders:
            contender.turn(1)
        for number in track(range(rounds), "rounds", console=Console(stderr=True)):
            for contender in in_turn(contenders, number):
                contender.seconds.append(contender.turn(steps))
    title = (
        f"ResNet-{depth} taught by ResNet-{teacher_depth}, batch {batch_size}, {real_precision(precision)},"
        f" {hardware(device)}, {rounds} rounds of {steps} steps"
    )
    Console(width=140).print(_table(title, contenders))


def _contenders(
    depth: int,
    teacher_depth: int,
    batch: Batch,
    precision: Precision,
    device: torch.device,
    folder: Path,
    backend: str,
) -> list[Contender]:
    # A file of weights is not opened if it holds anything but plain numbers, such as jsonargparse's PositiveInt.
    net_args: dict[str, Any] = {"depth": int(teacher_depth), "num_classes": 10}
    teacher_path = str(folder / "teacher.ckpt")
    write_atomically(classifier_checkpoint(CIFARResNet(**net_args), net_args), teacher_path)

    def classifier(module_class: type[ImageClassifier] = ImageClassifier, **arguments: Any) -> ImageClassifier:
        torch.manual_seed(0)
        return module_class(CIFARResNet(depth), 10, schedule="constant", **arguments)

    def lightning(module: ImageClassifier) -> Callable[[int], float]:
        return lambda steps: _turn(module, batch, steps, precision, folder, [])

    def run(module: ImageClassifier, *callbacks: L.Callback) -> Callable[[int], float]:
        return lambda steps: _turn(module, batch, steps, precision, folder, [*every_run(), *callbacks])

    return [
        Contender("bare loop", _bare(BareLoop(classifier().net, precision, device), batch)),
        Contender("Lightning", lightning(classifier()), ("bare loop",)),
        Contender("run", run(classifier()), ("Lightning",)),
        Contender("run, compiled", run(classifier(), Compile(backend)), ("run",)),
        Contender("run, weights averaged", run(classifier(), WeightAveraging(0.3)), ("run",)),
        Contender("teacher's forward pass", _TeacherForward(teacher_path, batch, precision, device)),
        Contender(
            "run, distillation",
            run(classifier(Distillation, teacher=teacher_path)),
            ("run", "teacher's forward pass"),
        ),
    ]


def _bare(loop: BareLoop, batch: Batch) -> Callable[[int], float]:
    def turn(steps: int) -> float:
        loop.train([batch])
        start = now(loop.device)
        loop.train([batch] * steps)
        return (now(loop.device) - start) / steps

    return turn


def every_run() -> list[L.Callback]:
    """The callbacks of every run."""
    return [
        LastCheckpoint(every_minutes=10),
        Reseeding(),
        RunSummary(),
        StopOnNonFinite(),
        RichProgressBar(refresh_rate=10),
        BestCheckpoint(monitor="val/top1", mode="max"),
    ]


def _turn(
    module: ImageClassifier,
    batch: Batch,
    steps: int,
    precision: Precision,
    folder: Path,
    callbacks: list[L.Callback],
) -> float:
    timer = StepTimer()
    trainer = L.Trainer(
        max_steps=steps + 2,
        default_root_dir=folder,
        precision=precision,
        logger=MetricsCSV(folder) if callbacks else False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=bool(callbacks),
        enable_model_summary=False,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        callbacks=[*callbacks[:2], timer, *callbacks[2:]],  # after what has to be the first
    )
    with redirect_stdout(io.StringIO()):  # the progress bar has the screen to itself in a run
        trainer.fit(module, DataLoader([batch] * (steps + 2), batch_size=None))  # type: ignore[arg-type]
    return mean(timer.seconds[1:])


class _TeacherForward:
    """A teacher's answers to a batch."""

    def __init__(self, path: str, batch: Batch, precision: Precision, device: torch.device) -> None:
        self.teacher = load_teacher(path, None, 10).expect(None, None, device)
        self.images = batch[0].to(device)
        self.device = device
        self.autocast = autocast(precision, device)

    def __call__(self, steps: int) -> float:
        for number in range(steps + 1):
            if number == 1:
                start = now(self.device)
            with self.autocast():
                self.teacher(self.images)
        return (now(self.device) - start) / steps


def _table(title: str, contenders: list[Contender]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "ms a step", "against", "time", "fastest–slowest round"):
        table.add_column(column, justify="left" if column in ("", "against") else "right")
    by_name = {contender.name: contender for contender in contenders}
    for contender in contenders:
        milliseconds = f"{1000 * median(contender.seconds):.1f}"
        if contender.reference:
            reference = [
                sum(times) for times in zip(*(by_name[name].seconds for name in contender.reference), strict=True)
            ]
            table.add_row(
                contender.name,
                milliseconds,
                " + ".join(contender.reference),
                *ratio_and_spread(contender.seconds, reference),
            )
        else:
            table.add_row(contender.name, milliseconds)
    return table
