"""What a run was and what came of it, in one file."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import nn

from lit_models.cost import count_macs, count_parameters

PACKAGES = ("torch", "lightning", "torchmetrics", "torchvision", "timm", "wandb")


class RunSummary(L.Callback):
    """Writes ``summary.json`` into the run directory when a run ends, whole or not.

    Callbacks, the module and the data module add to it by having a method ``report() -> dict``.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._status = "finished"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._started = time.monotonic()
        self._status = "finished"

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._status = "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
        self._write(trainer, pl_module, {"error": f"{type(exception).__name__}: {exception}"})

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._status == "finished":
            self._write(trainer, pl_module, {})

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule, more: dict[str, Any]) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        summary = {
            "status": self._status,
            **more,
            "metrics": {name: value.item() for name, value in trainer.callback_metrics.items()},
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - self._started, 1),
            "precision": trainer.precision,
            "devices": trainer.world_size,
            "hardware": hardware(trainer.strategy.root_device),
            **network_cost(pl_module, trainer),
        }
        for part in (pl_module, trainer.datamodule, *trainer.callbacks):  # type: ignore[attr-defined]
            if hasattr(part, "report"):
                summary |= part.report()
        summary |= provenance()
        path = Path(trainer.default_root_dir) / "summary.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=2) + "\n")


def network_cost(pl_module: L.LightningModule, trainer: L.Trainer) -> dict[str, int]:
    """Parameters, and multiply-adds of an image of the data module's size."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    net = cast(nn.Module, pl_module.net)
    cost = {"parameters": count_parameters(net)}
    if data is not None:
        cost["macs"] = count_macs(net, (data.in_channels, data.image_size, data.image_size))
    return cost


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def provenance() -> dict[str, Any]:
    """Versions of the packages, and the commit of the code where it is a checkout."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}


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
