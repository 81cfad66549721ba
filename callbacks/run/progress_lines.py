"""What a fit says on the terminal: lines that stay, and a bar for the epoch in work."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks.run.best_checkpoint import BestCheckpoint
from callbacks.run.run_summary import hardware, network_cost, read_summary

BRIEFLY = {"activation_lambda": "λ", "stochastic_depth/effective_depth": "depth", "lr": "lr"}
"""Logged values that the line of an epoch ends with, and what it calls them."""


class ProgressLines(Callback):
    """Prints four lines before a fit, one for each epoch, and up to four after it.

    They go to standard output, so that in a file or a pipe they are what a terminal shows, without its bar. A module
    may log whatever it likes: the line of an epoch has its loss and the metric by which the best checkpoint is chosen,
    as far as they are logged.

    Args:
        experiment: the name of the experiment.
    """

    def __init__(self, experiment: str) -> None:
        self.experiment = experiment
        self._began = 0.0
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = getattr(data, "batch_size", None)
        cost = network_cost(pl_module, trainer)
        say("experiment", self.experiment, _length(trainer))
        say(
            "network",
            type(getattr(pl_module, "net", pl_module)).__name__,
            f"{cost['parameters']:,} parameters",
            f"{cost['macs']:,} multiply-adds an image" if "macs" in cost else None,
        )
        say(
            "data",
            type(data or pl_module).__name__,
            f"{trainer.num_training_batches:,} batches{f' of {batch}' if batch else ''} an epoch",
        )
        devices = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
        say("precision", f"{trainer.precision} on {devices}{hardware(trainer.strategy.root_device)}")
        self._began = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        values = dict(trainer.callback_metrics)
        loss = next((name for name in ("train/loss", *values) if "loss" in name and name in values), None)
        score = _monitored(trainer) if self._validated else None
        # A few values, each of which synchronises with the device: once an epoch, when all of it has been done anyway.
        said = [f"{name} {values[name]:.4g}" for name in dict.fromkeys((loss, score)) if name in values]
        said += [f"{short} {values[name]:.3g}" for name, short in BRIEFLY.items() if name in values]
        now = time.monotonic()
        last = f"/{trainer.max_epochs}" if trainer.max_epochs not in (None, -1) else ""
        say("epoch", f"{trainer.current_epoch + 1}{last}", *said, f"{now - self._began:.1f} s")
        self._began, self._validated = now, False

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        run, summary = Path(trainer.default_root_dir), read_summary(trainer)
        if best := summary.get("best"):
            say("best", f"{best['metric']} {best['value']:.4g} in epoch {best['epoch'] + 1}")
        if merge := summary.get("merge"):
            say("merged", _merge_in_words(merge))
        if not getattr(trainer, "fast_dev_run", False):
            say("run", str(run))
            command = f"fathom test --ckpt_path {shlex.quote(str(run))}"
            say("next", command if best else f"fathom resume {shlex.quote(str(run))} --trainer.max_epochs N")


class EpochBar(RichProgressBar):
    """The bar of the epoch in work, which is gone when the fit is over."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.progress is not None:
            self.progress.live.transient = True

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Without the version of the logger, which is the last part of the run directory."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


def _length(trainer: L.Trainer) -> str | None:
    if trainer.max_steps != -1:
        return f"{trainer.max_steps:,} steps"
    return f"{trainer.max_epochs:,} epochs" if trainer.max_epochs not in (None, -1) else None


def _monitored(trainer: L.Trainer) -> str | None:
    """The metric by which the best checkpoint is chosen."""
    watching = (c.monitor for c in trainer.callbacks if isinstance(c, BestCheckpoint))  # type: ignore[attr-defined]
    return next(watching, None)


def _merge_in_words(merge: dict[str, Any]) -> str:
    if not merge["merged"]:
        return f"not, since {merge['reason']}"
    return (
        f"{merge['checkpoint']}, {merge['parameters_trained']:,} to {merge['parameters_merged']:,} parameters, logits"
        f" differ by up to {merge['max_logit_difference_float32']:.1e}"
    )


@rank_zero_only
def say(topic: str, *parts: str | None) -> None:
    """Print a line of what there is to say on a topic."""
    separator = "  " if topic == "epoch" else ", "
    print(f"{topic:10}  {separator.join(part for part in parts if part)}", flush=True)
