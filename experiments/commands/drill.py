"""Kill a run at random, resume it, and compare it with one that never stopped."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models import CIFARResNet
from lit_models.checkpoints import read_checkpoint
from lit_models.networks.vanillanet import annealed_relu

CONFIG = Path(__file__).parent / "drill.yaml"
TIMES = ("saved_time", "seconds", "RunSummary")
"""Of what is compared, all that measures time or counts resumptions."""


class DrilledNet(CIFARResNet):
    """A ResNet-8 for stochastic depth, with an annealed activation and dropout before its classifier.

    Args:
        num_classes: K.
        in_channels: channels of the images.
        width: channels of the first stage.
        dropout: probability.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 4, dropout: float = 0.2) -> None:
        super().__init__(8, num_classes, in_channels, width)
        self.activation_lambda: Tensor
        self.register_buffer("activation_lambda", torch.tensor(0.0))
        self.dropout = nn.Dropout(dropout)
        self.fc.register_forward_pre_hook(self._before_classifier)

    def set_activation_lambda(self, value: float) -> None:
        """Set λ."""
        self.activation_lambda.fill_(value)

    def _before_classifier(self, classifier: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return self.dropout(annealed_relu(inputs[0] - inputs[0].mean(), self.activation_lambda))


class Process(Protocol):
    """What is needed of a process that trains."""

    pid: int

    def kill(self) -> None:
        """SIGKILL, to it and to those that train with it."""

    def poll(self) -> int | None:
        """Its exit code, ``None`` while it runs."""


def drill(kills: int = 20, devices: int = 1, runs: str = "runs/drill", seed: int = 0) -> None:
    """Train twice, once without a break and once killed at random and resumed; print whether the two ends are equal.

    Kills fall anywhere in training, into the writing of checkpoints and into validations. A drill that is itself
    interrupted goes on where it was when it is called again with the same ``runs``.

    Args:
        kills: how often SIGKILL is sent, to all processes of the run at once.
        devices: more than one train with the strategy ``ddp``.
        runs: folder for both runs.
        seed: of the moments.
    """
    folder = Path(runs) / f"{devices}-device"
    flags = ["--config", str(CONFIG), "--trainer.enable_progress_bar", "false", "--wandb.group", "drill"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
    flags += ["--trainer.strategy", "ddp"] if devices > 1 else []
    kill = Kills(folder / "kills.json", seed)

    print(f"Training without a break in {folder}")
    while (whole := finished_run(folder / "whole")) is None:
        with ProcessGroup(command(folder / "whole", flags)) as process:
            wait(process)
    seconds = json.loads((whole / "summary.json").read_text())["seconds"]

    while (broken := finished_run(folder / "broken")) is None:
        with ProcessGroup(command(folder / "broken", flags)) as process:
            if kill.count < kills and kill(process, folder / "broken", 0.5 * seconds / kills):
                print(f"Kill {kill.count} of {kills}, {kill.moments[-1]}", flush=True)
            else:
                wait(process)

    if kill.count < kills:
        raise MisconfigurationException(f"the run in {broken} ended after {kill.count} kills: ask for fewer of them")
    found = list(differences(whole, broken))
    for difference in found[:20]:
        print(difference)
    if found:
        raise MisconfigurationException(f"{len(found)} differences after {kill.count} kills")
    print(f"Equal after {kill.count} kills: all tensors of the checkpoints, and {len(rows(whole))} rows of metrics.")


def command(folder: Path, flags: list[str]) -> list[str]:
    """Arguments that start the run in ``folder``, or go on with the one that is there."""
    directory = run_directory(folder)
    if directory is None:
        return ["fit", *flags, "--trainer.default_root_dir", str(folder)]
    return ["resume", str(directory)]


class ProcessGroup(subprocess.Popen[bytes]):
    """``fathom`` with ``args``, and the processes that it starts."""

    def __init__(self, args: list[str]) -> None:
        super().__init__([sys.executable, "-m", "experiments", *args], start_new_session=True)

    def kill(self) -> None:
        """SIGKILL to all of them at once."""
        os.killpg(self.pid, signal.SIGKILL)

    def __exit__(self, *error: Any) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*error)


def wait(process: Process) -> None:
    """Until it has ended.

    Raises:
        MisconfigurationException: where it failed.
    """
    while (code := process.poll()) is None:
        time.sleep(0.01)
    if code:
        raise MisconfigurationException(f"a run that was not killed ended with exit code {code}")


class Kills:
    """SIGKILL at random moments, counted in a file.

    Args:
        path: of the file.
        seed: of the moments.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.moments: list[str] = json.loads(path.read_text()) if path.is_file() else []

    @property
    def count(self) -> int:
        """Kills so far."""
        return len(self.moments)

    def __call__(self, process: Process, folder: Path, seconds: float) -> bool:
        """Kill once ``process`` trains: within ``seconds``, as a checkpoint is written, or just after that.

        Returns:
            Whether it was still running.
        """
        draw = random.Random(f"{self.seed} {self.count}")
        moment = ("anywhere", "writing a checkpoint", "after a checkpoint, as in a validation")[self.count % 3]
        saved = _written(folder)
        ready: dict[str, Callable[[], bool]] = {
            "anywhere": lambda: _locked_by(process, folder),
            "writing a checkpoint": lambda: _is_writing(folder),
        }
        until = ready.get(moment, lambda: _written(folder) > saved)
        while not until():
            if process.poll() is not None:
                return False
            time.sleep(0.001)
        time.sleep(draw.uniform(0, {"anywhere": seconds, "writing a checkpoint": 0.002}.get(moment, 0.1)))
        if process.poll() is not None:
            return False
        process.kill()
        while process.poll() is None:
            time.sleep(0.01)
        self.moments.append(moment)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.moments))
        return True


def run_directory(folder: Path) -> Path | None:
    """The one run in ``folder``, once it has a configuration to go on with."""
    return next((path.parent for path in folder.glob("*/*/config.yaml")), None)


def finished_run(folder: Path) -> Path | None:
    """The same, once it is finished."""
    directory = run_directory(folder)
    try:
        summary = json.loads((directory / "summary.json").read_text()) if directory else {}
    except (OSError, ValueError):
        return None
    return directory if summary.get("status") == "finished" else None


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """In what the checkpoints and the metrics of two run directories differ, times left out."""
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (read_checkpoint(path / "checkpoints" / name) for path in (ours, theirs))
        yield from _unequal(first, second, name)
    yield from _unequal(rows(ours), rows(theirs), "metrics.csv")


def rows(directory: Path) -> list[dict[str, str]]:
    """``metrics.csv``."""
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def _unequal(ours: Any, theirs: Any, name: str) -> Iterator[str]:
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        ours, theirs = dict(enumerate(ours)), dict(enumerate(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            if not any(time in str(key) for time in TIMES):
                yield from _unequal(ours.get(key), theirs.get(key), f"{name} {key}")
    elif isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        if not torch.equal(ours, theirs):
            yield f"{name}: {ours} and {theirs}"
    elif ours != theirs:
        yield f"{name}: {ours} and {theirs}"


def _locked_by(process: Process, folder: Path) -> bool:
    try:
        directory = run_directory(folder)
        return directory is not None and json.loads((directory / ".lock").read_text())["pid"] == process.pid
    except (OSError, ValueError):
        return False


def _checkpoints(folder: Path) -> Path:
    return (run_directory(folder) or folder) / "checkpoints"


def _is_writing(folder: Path) -> bool:
    try:
        return any(name.startswith("..next") for name in os.listdir(_checkpoints(folder)))
    except OSError:
        return False


def _written(folder: Path) -> float:
    try:
        return (_checkpoints(folder) / "last.ckpt").stat().st_mtime
    except OSError:
        return 0.0
