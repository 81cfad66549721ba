"""Print what a fit would do: batch, learning rate, decay, cost; train nothing."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments.cli.command_line import FathomCLI
from experiments.cli.fit_flags import with_fit_flags
from experiments.figures import house_style, integers, save
from experiments.internals import attach_data
from lit_models.cost import count_macs
from lit_models.tasks.optimization import global_batch_size
from lit_models.tasks.schedules import Factor, steps_per_epoch

Lines = dict[str, str]
"""Text by topic."""

ORDER = (
    *("network", "data", "batch", "steps", "precision", "optimizer", "learning rate", "groups", "zero-γ", "loss"),
    *("mixing", "teacher"),
)
"""Topics in the order in which they are printed; all others follow."""


@runtime_checkable
class Explains(Protocol):
    """A callback, data module or LightningModule that describes its part in a fit."""

    def explain(self, trainer: L.Trainer) -> Lines:
        """Text by topic; ``setup`` has been called, and the trainer knows its module and data module."""


@runtime_checkable
class SkipsWork(Protocol):
    """A callback under which a training step computes less than the whole network."""

    def skipped_macs(self, image_shape: tuple[int, int, int]) -> float:
        """Multiply-adds of the forward pass of an image (C, H, W) that are left out on average."""


def explain(args: list[str]) -> None:
    """Print what ``fathom fit`` would do with the same flags; train nothing and write nothing but the curve."""
    parser = ArgumentParser(
        prog="fathom explain",
        usage="fathom explain --config EXPERIMENT.yaml [--curve FILE] [options of fathom fit]",
        description="Print what fathom fit would do with the same flags, and train nothing. It needs the data, to"
        " count the steps; where they are not here, others stand in: --data datamodules.Digits --data.image_size 224",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw the learning rate into a .png, .svg or .pdf")
    options, fit_flags = with_fit_flags(parser, args)
    cli = ExplainCLI(["fit", *fit_flags])
    lines = cli.explanation
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
    if options.curve:
        if not hasattr(cli.model, "lr_factor"):
            raise MisconfigurationException(
                f"--curve draws the schedule of an ImageClassifier; {type(cli.model).__name__} has none: leave it out"
            )
        steps = cli.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise MisconfigurationException("a fit without end has no curve: set --trainer.max_epochs")
        draw_curve(cli.model.lr_factor(), cli.model.peak_lr, int(steps), options.curve)
        print(f"{options.curve} is written")


class ExplainCLI(FathomCLI):
    """The command line of ``fit`` up to where training would start."""

    explanation: Lines

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        self.save_config_callback = None
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """A fit would make its run directory here."""

    def _loggers(self, *_: Any) -> list[Logger]:
        return []

    def fit(self, model: L.LightningModule, datamodule: L.LightningDataModule, **_: Any) -> None:
        """In the place of the trainer's."""
        prepare(self.trainer, model, datamodule)
        self.explanation = explanation(self.trainer)


def prepare(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> None:
    """What ``trainer.fit`` does before it configures the optimizer, in this process alone."""
    trainer.state.fn = TrainerFn.FITTING
    trainer.training = True
    trainer.strategy.connect(model)
    attach_data(trainer, model, data)
    data.prepare_data()
    data.setup("fit")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        callback.setup(trainer, model, "fit")
    model.setup("fit")


def explanation(trainer: L.Trainer) -> Lines:
    """What the fit of ``trainer`` consists of: what it says itself, and each of its parts."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    lines = {
        "batch": f"{global_batch_size(trainer):,} images a step: batches of {data.batch_size} × {trainer.world_size}"
        f" (devices) × {trainer.accumulate_grad_batches} (accumulated)",
        "steps": f"{trainer.estimated_stepping_batches:,} in all, {steps_per_epoch(trainer):,} an epoch",
        "precision": str(trainer.precision),
    }
    for part in parts(trainer):
        if isinstance(part, Explains):
            lines |= part.explain(trainer)
    lines["training cost"] = training_cost(trainer)
    return dict(sorted(lines.items(), key=lambda line: ORDER.index(line[0]) if line[0] in ORDER else len(ORDER)))


def parts(trainer: L.Trainer) -> Iterator[object]:
    """Module, data module and callbacks."""
    yield from (trainer.lightning_module, trainer.datamodule, *trainer.callbacks)  # type: ignore[attr-defined]


def training_cost(trainer: L.Trainer) -> str:
    """Multiply-adds of an image and of the fit; the backward pass counts as two forward passes."""
    model: Any = trainer.lightning_module
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    shape = (data.in_channels, data.image_size, data.image_size)
    skipped = sum(part.skipped_macs(shape) for part in parts(trainer) if isinstance(part, SkipsWork))
    forward = (model.macs(shape) if hasattr(model, "macs") else count_macs(model.net, shape)) - skipped
    expected = " expected" if skipped else ""
    macs = EngFormatter(places=2)
    line = f"{macs(forward)} multiply-adds{expected} forward, {macs(3 * forward)} forward and backward for an image"
    taught = 0
    if teacher := getattr(model, "teacher", None):
        taught = count_macs(teacher.net, shape)
        line += f", and {macs(taught)} of the teacher"
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        return line
    an_epoch = len(data.split[0]) * trainer.num_training_batches / len(data.train_dataloader())
    seen = an_epoch * steps / steps_per_epoch(trainer)
    return f"{line}\n{macs((3 * forward + taught) * seen)} for the fit of {seen:,.0f} images"


@house_style()
def draw_curve(factor: Factor, peak: float, steps: int, path: Path) -> None:
    """The learning rate in each step, of which at most 2,000 are drawn."""
    shown = range(0, steps, max(steps // 2000, 1))
    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    rates = [peak * factor(step) for step in shown]
    axes.step([step + 1 for step in shown], rates, where="post", marker="")
    axes.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    integers(axes.xaxis)
    save(figure, path)
