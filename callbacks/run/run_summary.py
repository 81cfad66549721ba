"""What a run was and what came of it, in one file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from callbacks.run.internals import set_run_directory
from lit_models.cost import count_macs, count_parameters
from lit_models.files import atomic

PACKAGES = ("torch", "lightning", "torchmetrics", "torchvision", "timm", "wandb")


class RunSummary(L.Callback):
    """Writes ``summary.json`` into the run directory when training begins, and when a run ends, whole or not.

    ``status`` is training, finished, interrupted or failed; of a run that was killed it stays training. A resumed run
    that fails before it trains leaves what is there. All ranks write into the run directory of the first one, and each
    writes the error that ends it: those of the others may not live to tell.

    Callbacks, the module and the data module add to it by having a method ``report() -> dict``. What a callback
    reported of the training before a checkpoint is part of the checkpoint, and holds until it reports anew. ``seconds``
    is the wall time of all the training that led here: of a resumed run, with that of before up to the checkpoint, and
    ``resumed`` says how often. ``commands`` are those that began the run and resumed it, in this order.

    Args:
        command: that was typed, if one was.
    """

    def __init__(self, command: str | None = None) -> None:
        self._commands = [command] if command else []
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._resumed = 0
        self._status = "finished"
        self._began = False
        self._callbacks: list[Any] = []
        self._reported: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._started = time.monotonic()
        self._status = "finished"
        self._fitting = stage == "fit"
        self._began = False
        self._callbacks, self._reported = trainer.callbacks, {}  # type: ignore[attr-defined]
        set_run_directory(trainer, trainer.strategy.broadcast(trainer.default_root_dir))
        self._commands = [*read_summary(trainer).get("commands", []), *self._commands]

    def state_dict(self) -> dict[str, Any]:
        # As text, whatever kinds of numbers it has; sorted, as a resumed run may learn of it in another order.
        reported = json.dumps(self._reported | reports(self._callbacks), sort_keys=True)
        return {"seconds": self._seconds(), "resumed": self._resumed, "reported": reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._fitting:  # a test of this checkpoint is a run of its own
            return
        self._seconds_before = state_dict["seconds"]
        self._resumed = state_dict["resumed"] + 1
        self._reported = json.loads(state_dict.get("reported", "{}"))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = True
        if trainer.is_global_zero:
            self._write(trainer, pl_module, {"status": "training"})

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._status = "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
        before = read_summary(trainer)
        if before and not self._began:
            return
        error = f"{type(exception).__name__}: {exception}"
        # When one rank fails, the others fail too, as they miss it: the first of these errors is the reason.
        first = before["error"] if before.get("status") == "failed" else None
        try:
            if trainer.is_global_zero:
                self._write(trainer, pl_module, {"error": first or error})
            elif self._callbacks and self._status == "failed" and not first:
                # No metrics: to compute them could mean to wait for the others.
                _save(trainer, before | {"status": "failed", "error": f"rank {trainer.global_rank}: {error}"})
        except OSError as reason:  # such as a full disk, of which the exception itself may tell
            rank_zero_warn(f"summary.json was not written: {reason}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._status == "finished" and trainer.is_global_zero:
            self._write(trainer, pl_module, {})

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, more: dict[str, Any]) -> None:
        seed = os.environ.get("PL_GLOBAL_SEED")  # where seed_everything leaves it
        summary = {
            "status": self._status,
            **more,
            "commands": self._commands,
            "metrics": {},
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(self._seconds(), 1),
            "resumed": self._resumed,
            "seed": None if seed is None else int(seed),
            "precision": trainer.precision,
            "tf32": torch.get_float32_matmul_precision() != "highest",
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "devices": trainer.world_size,
            "hardware": hardware(trainer.strategy.root_device),
        }
        # What failed may have failed before there was anything to report.
        with suppress(Exception) if self._status == "failed" else nullcontext():
            summary["metrics"] = {name: value.item() for name, value in trainer.callback_metrics.items()}
            summary |= network_cost(pl_module, trainer)
            summary |= reports([pl_module, trainer.datamodule])  # type: ignore[attr-defined]
            summary |= self._reported | reports(self._callbacks)
        _save(trainer, summary | provenance())


def _path(trainer: L.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "summary.json"


def _save(trainer: L.Trainer, summary: dict[str, Any]) -> None:
    if not getattr(trainer, "fast_dev_run", False):
        with atomic(_path(trainer)) as file:
            file.write(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def read_summary(trainer: L.Trainer) -> dict[str, Any]:
    """The summary that is in the run directory, empty where there is none."""
    with suppress(OSError, ValueError):
        if isinstance(summary := json.loads(_path(trainer).read_text(encoding="utf-8")), dict):
            return summary
    return {}


def reports(parts: Iterable[Any]) -> dict[str, Any]:
    """What all ``parts`` that have a method ``report`` say, later ones over earlier ones."""
    reported: dict[str, Any] = {}
    for part in parts:
        if hasattr(part, "report"):
            reported |= part.report()
    return reported


def network_cost(pl_module: L.LightningModule, trainer: L.Trainer) -> dict[str, int]:
    """Parameters, and multiply-adds of an image of the data module's size, where they can be counted."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    net: nn.Module = getattr(pl_module, "net", pl_module)
    cost = {"parameters": count_parameters(net)}
    if data is not None:
        # Of a forward pass that depends on values, of which counting has none; of other data than images.
        with suppress(RuntimeError, AttributeError):
            shape = (data.in_channels, data.image_size, data.image_size)
            counts = getattr(pl_module, "macs", None)
            cost["macs"] = counts(shape) if counts else count_macs(net, shape)
    return cost


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' if threads != 1 else ''})"


def provenance() -> dict[str, Any]:
    """Versions of the packages that are installed; of the code, if it is a checkout, the commit and its cleanliness."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):  # W&B is not needed where it is disabled
            versions[name] = importlib.metadata.version(name)
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
