"""Runs commands of ``fathom``, each in a process and session of its own, and says how they ended.

Usage: ``python run_cases.py CASES.json``. A case is a name, a folder and arguments; the imports, which take longest,
are done once. The result is printed as JSON: exit code (null after a minute), what was printed, and processes left.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from threading import Timer

import lightning as L
import torch

from datamodules.pipeline import internals

LIMIT = 60.0


class Misbehave(L.Callback):
    """Does what ``deed`` says, once."""

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step != 3:
            return
        if self.deed.startswith("SIG"):
            os.killpg(0, getattr(signal, self.deed))
        elif self.deed == "nan":
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)
        elif self.deed == "kill a worker":
            os.kill(worker(), signal.SIGKILL)
        elif self.deed == "stop in mid-run, then SIGTERM":
            internals.SECONDS_BETWEEN_LOOKS = 0.5  # or this would take twenty seconds
            os.kill(worker(), signal.SIGSTOP)
            Timer(4, os.kill, [os.getpid(), signal.SIGTERM]).start()  # when the batches made before are used up
        elif self.deed == "stop in mid-run":
            internals.MOST_LOOKS = 1  # or this would take ten minutes
            os.kill(worker(), signal.SIGSTOP)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.deed == "stop a worker":
            os.kill(worker(), signal.SIGSTOP)

    def on_test_batch_end(self, *_: object) -> None:
        if self.deed == "SIGTERM in test":
            os.killpg(0, signal.SIGTERM)


def worker() -> int:
    """Process number of a data worker of this process."""
    return min(pid for pid, (parent, _) in processes().items() if parent == os.getpid())


def processes() -> dict[int, tuple[int, int]]:
    """Parent and session of every process that is no zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent), int(session)
    return found


def left_over(session: int, limit: float = 7.0) -> list[int]:
    """Processes of a session that are there after ``limit`` seconds: torch's workers look for their parent every 5."""
    end = time.monotonic() + limit
    while (left := [pid for pid, (_, of) in processes().items() if of == session]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def run(folder: str, args: list[str]) -> int:
    """In a child: what ``python -m experiments`` does, output to a file."""
    from experiments.__main__ import main

    os.setsid()
    # A shell lets what runs in its background ignore the one, and nohup the other.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return main(args)


def wait(pid: int) -> int | None:
    """Exit code, ``None`` after :data:`LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


if __name__ == "__main__":
    import experiments.cli.command_line  # noqa: F401

    results = {}
    for name, (folder, args) in json.loads(Path(sys.argv[1]).read_text()).items():
        if not (pid := os.fork()):
            sys.exit(run(folder, args))
        code = wait(pid)
        left = left_over(pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
        output = (Path(folder) / "output").read_text()
        results[name] = {"code": code, "left": left, "output": output}
    print(json.dumps(results))
