"""The private names of torch and Lightning that the pipeline relies on; seen with torch 2.14 and Lightning 2.6."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.pipeline.batches import Loader
from datamodules.pipeline.internals import OwnedWorkers

ROOM = Path(__file__).parents[3] / "datamodules"
START = """
import multiprocessing, sys
import torch
from datamodules import Photos, SmallImages

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for kind in (Photos, SmallImages):
        data = kind("data", image_size=8, batch_size=4, num_workers=1, mean=(0, 0, 0), std=(1, 1, 1))
        alone = kind("data", image_size=8, batch_size=4, num_workers=0, mean=(0, 0, 0), std=(1, 1, 1))
        for ours, theirs in zip(data.batches("train"), alone.batches("train"), strict=True):
            assert torch.equal(ours[0], theirs[0])
    batches = iter(loader := data.test_dataloader())
    next(batches)  # workers are there at the end
"""


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_workers_of_every_start_method_work_and_end(tmp_path, make_photos, method):
    make_photos(tmp_path / "data")
    (tmp_path / "script.py").write_text(START)
    environment = os.environ | {"PYTHONPATH": str(ROOM.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "script.py", method]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def _loader(count: int = 8) -> Loader:
    return Loader(lambda: iter(range(count)), lambda number: number, count, num_workers=2)


def _workers() -> list[multiprocessing.Process]:
    return sorted(multiprocessing.active_children(), key=lambda process: process.pid)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_workers_leave_the_signals_of_a_job_to_their_parent(name):
    loader = _loader()
    batches = iter(loader)
    first = next(batches)
    for worker in _workers():
        os.kill(worker.pid, getattr(signal, name))
    assert [first, *batches] == list(range(8))
    loader.close()
    assert _workers() == []


def test_stopped_workers_are_ended():
    loader = _loader()
    assert list(loader) == list(range(8))
    for worker in _workers():
        os.kill(worker.pid, signal.SIGSTOP)
    loader.close()
    assert _workers() == []
    assert list(loader) == list(range(8))  # with new ones


def test_a_loader_that_is_dropped_ends_its_workers():
    loader = _loader()
    assert next(iter(loader)) == 0
    assert len(_workers()) == 2
    del loader
    assert _workers() == []


def test_a_worker_that_died_is_one_sentence():
    loader = _loader(100)
    batches = iter(loader)
    next(batches)
    os.kill(_workers()[0].pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"memory .* data\.num_workers \(now 2\) .*`fathom resume`") as caught:
        list(batches)
    assert caught.value.__suppress_context__
    assert _workers() == []


def test_torch_has_the_names_that_are_used():
    loader = OwnedWorkers([1, 2], batch_size=None, num_workers=1, persistent_workers=True)
    assert list(loader.batches()) == [1, 2]
    iterator = loader._owned
    assert iterator is loader._iterator
    assert len(iterator._workers) == len(iterator._index_queues) == 1
    assert (iterator._shutdown, iterator._worker_pids_set) == (False, False)
    assert iterator._worker_result_queue is not None
    loader.end_workers()
    assert iterator._shutdown


def test_private_names_of_others_are_in_one_module():
    def private(path: Path) -> list[str]:
        found = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("datamodules", "__future__")):
                found += [
                    part for part in (*(node.module or "").split("."), *(a.name for a in node.names)) if part[0] == "_"
                ]
        return found

    users = {path.name for path in ROOM.rglob("*.py") if private(path)}
    assert users <= {"internals.py"}
