"""Whether a run that is killed and resumed ends as one that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from experiments.check.answers import Answer, Setting
from experiments.errors import UsageError
from lit_models.checkpoints import read_checkpoint

FIT = ["fit", "--config", "vanillanet_digits", "--trainer.enable_progress_bar", "false", "--wandb.mode", "disabled"]
FIT += ["--data.image_size", "16", "--model.net.init_args.width", "8", "--last_checkpoint.every_n_steps", "4"]
SECONDS = 180
"""Before a process that does not end is killed."""


def resumption(setting: Setting) -> Iterator[Answer]:
    """SIGKILL after the first checkpoint, then ``fathom resume``; on a GPU also without deterministic algorithms."""
    flags = ["--trainer.accelerator", "gpu" if setting.on_gpu else "cpu", "--trainer.devices", "1"]
    flags += ["--trainer.max_epochs", "3" if setting.quick else "6"]
    kinds = ["deterministic algorithms", "as it is"] if setting.on_gpu else ["as it is"]
    with ExitStack() as running:
        started = {}
        for kind in kinds:  # all at once
            exact = ["--trainer.deterministic", "true"] if kind == "deterministic algorithms" else []
            roots = [setting.folder / kind.replace(" ", "_") / name for name in ("whole", "killed")]
            words = [*FIT, *flags, *exact, "--trainer.default_root_dir"]
            started[kind] = [(root, _start([*words, str(root)], running)) for root in roots]
        for kind, ((whole, left_alone), (killed, victim)) in started.items():
            last = _kill(victim, killed)
            _wait(_start(["resume", str(last.parents[1])], running))
            _wait(left_alone)
            (other,) = whole.glob("*/*/checkpoints/last.ckpt")
            difference = _largest_difference(read_checkpoint(last), read_checkpoint(other))
            required = not setting.on_gpu or kind != "as it is"
            text = "equal bit for bit" if difference == 0 else f"weights differ by {difference:.1e} of the largest"
            passed = difference == 0 if required else None
            yield Answer(f"killed and resumed, {kind}", text, passed, {"difference": difference})


def _start(words: list[str], running: ExitStack) -> subprocess.Popen[bytes]:
    """``fathom`` with ``words``, which does not outlive ``running``."""
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # deterministic products need it
    command = [sys.executable, "-m", "experiments", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    running.callback(process.wait)
    running.callback(process.kill)
    return process


def _kill(process: subprocess.Popen[bytes], root: Path) -> Path:
    """Kill a fit once it has written a checkpoint, which is returned."""
    end = time.monotonic() + SECONDS
    while not (found := list(root.glob("*/*/checkpoints/last.ckpt"))):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise UsageError(f"a fit ended before its first checkpoint: {_last_words(process)}")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise UsageError("a fit ended before it was killed")
    return found[0]


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        _, error = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode:
        raise UsageError(f"a fit failed: {error.decode(errors='replace').strip()[-500:]}")


def _last_words(process: subprocess.Popen[bytes]) -> str:
    return process.communicate()[1].decode(errors="replace").strip()[-500:]


def _largest_difference(ours: dict[str, object], theirs: dict[str, object]) -> float:
    """Of all weights, relative to the largest."""
    first, second = (state["state_dict"] for state in (ours, theirs))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    pairs: list[tuple[Tensor, Tensor]] = [(first[name].double(), second[name].double()) for name in second]
    largest = max(float(value.abs().max()) for _, value in pairs if value.numel())
    if all(torch.equal(a, b) for a, b in pairs):
        return 0.0
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel()) / largest
