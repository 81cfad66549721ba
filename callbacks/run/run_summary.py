"""What a run was and what came of it, in one file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from lit_models.cost import count_macs, count_parameters
from lit_models.files import atomic

PACKAGES = ("torch", "lightning", "torchmetrics", "torchvision", "timm", "wandb")


class RunSummary(L.Callback):
    """Writes ``summary.json`` into the run directory when training begins, and when a run ends, whole or not.

    ``status`` is training, finished, interrupted or failed; of a run that was killed it stays training. A resumed run
    that fails before it trains leaves what is there.

    Callbacks, the module and the data module add to it by having a method ``report() -> dict``. ``seconds`` is the
    wall time of all the training that led here: of a resumed run, with that of before up to the checkpoint, and
    ``resumed`` says how often.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._resumed = 0
        self._status = "finished"
        self._began = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._started = time.monotonic()
        self._status = "finished"
        self._fitting = stage == "fit"
        self._began = False

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds(), "resumed": self._resumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._fitting:  # a test of this checkpoint is a run of its own
            return
        self._seconds_before = state_dict["seconds"]
        self._resumed = state_dict["resumed"] + 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = True
        self._write(trainer, pl_module, {"status": "training"})

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._status = "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
        if not self._began and _path(trainer).is_file():
            return
        try:
            self._write(trainer, pl_module, {"error": f"{type(exception).__name__}: {exception}"})
        except OSError as error:  # such as a full disk, of which the exception itself may tell
            rank_zero_warn(f"summary.json was not written: {error}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._status == "finished":
            self._write(trainer, pl_module, {})

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, more: dict[str, Any]) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        seed = os.environ.get("PL_GLOBAL_SEED")  # where seed_everything leaves it
        summary = {
            "status": self._status,
            **more,
            "metrics": {name: value.item() for name, value in trainer.callback_metrics.items()},
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self._seconds(), 1),
            "resumed": self._resumed,
            "seed": None if seed is None else int(seed),
            "precision": trainer.precision,
            "devices": trainer.world_size,
            "hardware": hardware(trainer.strategy.root_device),
        }
        reports: list[Callable[[], dict[str, Any]]] = [lambda: network_cost(pl_module, trainer)]
        reports += [
            part.report
            for part in (pl_module, trainer.datamodule, *trainer.callbacks)  # type: ignore[attr-defined]
            if hasattr(part, "report")
        ]
        for report in reports:
            # What failed may have failed before there was anything to report.
            with suppress(Exception) if self._status == "failed" else nullcontext():
                summary |= report()
        summary |= provenance()
        with atomic(_path(trainer)) as file:
            file.write(json.dumps(summary, indent=2) + "\n")


def _path(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "summary.json"


def network_cost(pl_module: L.LightningModule, trainer: L.Trainer) -> dict[str, int]:
    """Parameters, and multiply-adds of an image of the data module's size, where they can be counted."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    net: nn.Module = getattr(pl_module, "net", pl_module)
    cost = {"parameters": count_parameters(net)}
    if data is not None:
        # Of a forward pass that depends on values, of which counting has none; of other data than images.
        with suppress(RuntimeError, AttributeError):
            cost["macs"] = count_macs(net, (data.in_channels, data.image_size, data.image_size))
    return cost


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def provenance() -> dict[str, Any]:
    """Versions of the packages; and of the code, where it is a checkout, the commit, and whether it was changed."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    checkout = _git("ls-files", "--error-unmatch", __file__) is not None
    return {
        "versions": versions,
        "commit": _git("rev-parse", "HEAD") if checkout else None,
        "dirty": bool(_git("status", "--porcelain")) if checkout else None,
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout this file lies in, ``None`` where it lies in none."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
