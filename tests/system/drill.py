"""A run that is killed at random, resumed, and compared with one that never stopped.

As a script this is ``fathom`` for processes of their own, to which the network below is no stranger.
"""

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
from typing import Any

import torch
from torch import Tensor, nn

from experiments.__main__ import main
from experiments.cli.trusted_names import TRUSTED
from lit_models import CIFARResNet
from lit_models.checkpoints import read_checkpoint
from lit_models.networks.annealed import annealed_relu

TRUSTED.add("drill")  # else a resumed run may not name the network
REPOSITORY = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "drill.yaml"
SQUARES = CONFIG.with_name("squares.yaml")
QUIET = ["--trainer.enable_progress_bar", "false", "--wandb.mode", "disabled"]
SMALL = ["--config", str(CONFIG), *QUIET, "--trainer.max_epochs", "2", "--data.train_size", "200"]
SMALL += ["--trainer.limit_val_batches", "2", "--last_checkpoint.every_n_steps", "2"]
"""Each of two epochs has 7 micro-batches in 4 optimizer steps, and is validated on 2 batches after the 3rd and 6th."""
TIMES = ("seconds", "RunSummary", "resumed", "commands", "Timer", "commit", "dirty")
"""Of what is compared, all that measures time, tells of resumptions, or says in which state the checkout is."""


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


def command(folder: Path, flags: list[str]) -> list[str]:
    """Arguments that start the run in ``folder``, or go on with the one that is there."""
    directory = run_directory(folder)
    if directory is None:
        return ["fit", *flags, "--trainer.default_root_dir", str(folder)]
    return ["resume", str(directory)]


class ProcessGroup(subprocess.Popen[bytes]):
    """``fathom`` with ``args``, and the processes that it starts; none of them outlives the block."""

    def __init__(self, args: list[str]) -> None:
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        super().__init__(
            [sys.executable, __file__, *args], start_new_session=True, env=os.environ | {"PYTHONPATH": path}
        )

    def kill(self) -> None:
        """SIGKILL to all of them at once."""
        os.killpg(self.pid, signal.SIGKILL)

    def __exit__(self, *error: Any) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*error)


def wait(process: Any, seconds: float = 1800) -> None:
    """Until it has ended, which has to be a success within a time."""
    end = time.monotonic() + seconds
    while (code := process.poll()) is None:
        if time.monotonic() > end:
            process.kill()
            raise TimeoutError(f"a run that was not killed has not ended after {seconds} s")
        time.sleep(0.01)
    assert code == 0, f"a run that was not killed ended with exit code {code}"


class Kills:
    """SIGKILL at random moments; a process is anything with ``pid``, ``poll`` and ``kill``.

    Args:
        seed: of the moments.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.count = 0

    def __call__(self, process: Any, folder: Path, seconds: float) -> bool:
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
        self.count += 1
        return True


def run_directory(folder: Path) -> Path | None:
    """The one run in ``folder``, once it has a configuration to go on with."""
    return next((path.parent for path in folder.glob("*/*/config.yaml")), None)


def finished_run(folder: Path) -> Path | None:
    """The one run in ``folder``, once it is finished."""
    directory = run_directory(folder)
    try:
        summary = json.loads((directory / "summary.json").read_text()) if directory else {}
    except (OSError, ValueError):
        return None
    return directory if summary.get("status") == "finished" else None


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """In what the checkpoints, the metrics and the summaries of two run directories differ, times left out."""
    for name in ("last.ckpt", "best.ckpt"):
        paths = [run / "checkpoints" / name for run in (ours, theirs)]
        first, second = (read_checkpoint(path) if path.is_file() else None for path in paths)
        yield from _unequal(first, second, name)
    yield from _unequal(rows(ours), rows(theirs), "metrics.csv")
    yield from _unequal(*(json.loads((run / "summary.json").read_text()) for run in (ours, theirs)), "summary.json")


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


def _locked_by(process: Any, folder: Path) -> bool:
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


if __name__ == "__main__":
    sys.exit(main())
