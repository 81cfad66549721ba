"""Whether every recipe trains here: a few real steps with all its callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any

import lightning as L
import torch

from experiments.check.answers import Answer, Setting, not_applicable
from experiments.cli.command_line import FathomCLI
from experiments.cli.read_config import read_config
from experiments.cli.recipes import recipes as all_recipes
from lit_models import CIFARResNet
from lit_models.checkpoints import classifier_checkpoint, write_atomically

QUICK = ("vanillanet_digits", "resnet20_cifar10")
WITHOUT_CLASSES = ("lit_models.Detector", "lit_models.Segmenter")
SCALER = "grad_scaler.py"
"""Where torch waits for whether gradients have overflowed, with an optimizer that has no fused form, such as lamb."""


def recipes(setting: Setting) -> Iterator[Answer]:
    """Digits stand in for the data, and large networks are narrow; all else is as the recipe has it."""
    paths = all_recipes()
    for name in QUICK if setting.quick else paths:
        if read_config(str(paths[name])).get("model", {}).get("class_path") in WITHOUT_CLASSES:
            yield not_applicable(name, "digits have neither boxes nor masks")
            continue
        watch = Waits(setting.device)
        try:
            cli = _Watched(_words(name, setting), watch)
        except Exception as error:
            yield Answer(name, f"{type(error).__name__}: {error}", False)
            continue
        loss = float(cli.trainer.callback_metrics["train/loss"])
        if not cli.trainer.optimizers[0].defaults.get("fused"):
            watch.waits = [line for line in watch.waits if SCALER not in line]
        waits = f"{len(watch.waits)} waits for the device between logging steps" if setting.on_gpu else "on a CPU"
        passed = isfinite(loss) and not watch.waits
        yield Answer(name, f"loss {loss:.3f}, {waits}", passed, {"loss": loss, "waits": sorted(set(watch.waits))})


class Waits(L.Callback):
    """Notes where the host waits for a GPU in the second and third step of a fit; the first one sets things up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waits: list[str] = []
        self._recording = ExitStack()
        self._warnings: list[warnings.WarningMessage] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1 and self.device.type == "cuda":
            self._warnings = self._recording.enter_context(warnings.catch_warnings(record=True)) or []
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            self._recording.callback(torch.cuda.set_sync_debug_mode, "default")
        if batch_idx == 3:
            self._stop()

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        for warning in self._warnings:
            if "synchroniz" in str(warning.message):
                self.waits.append(f"{warning.filename}:{warning.lineno}")
        self._warnings = []
        self._recording.close()


class _Watched(FathomCLI):
    """A fit with one more callback."""

    def __init__(self, args: list[str], watch: L.Callback) -> None:
        self._watch = watch
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(self._watch)  # type: ignore[attr-defined]
        return trainer


def _words(name: str, setting: Setting) -> list[str]:
    words = ["fit", "--config", name, "--data", "datamodules.Digits", "--data.batch_size", "4"]
    words += ["--data.num_workers", "0", "--wandb.mode", "disabled", "--trainer.max_steps", "4"]
    words += ["--trainer.limit_val_batches", "1", "--trainer.accumulate_grad_batches", "1"]
    words += ["--trainer.log_every_n_steps", "4", "--trainer.enable_progress_bar", "false"]
    words += ["--trainer.accelerator", "gpu" if setting.on_gpu else "cpu", "--trainer.devices", "1"]
    words += ["--trainer.default_root_dir", str(setting.folder / "recipes")]
    if "imagenet" in name:
        words += ["--data.image_size", "224" if setting.on_gpu else "64"]
    if name.startswith("vanillanet") and "imagenet" in name:
        words += ["--model.net.init_args.width", "16"]
    if "distilled" in name:
        words += ["--model.teacher", str(_teacher(setting.folder / "teacher.ckpt"))]
    return words


def _teacher(path: Path) -> Path:
    """A checkpoint to learn from, of a network that has learned nothing."""
    net_args: dict[str, Any] = {"depth": 8, "num_classes": 10, "in_channels": 1}
    write_atomically(classifier_checkpoint(CIFARResNet(**net_args), net_args), path)
    return path
