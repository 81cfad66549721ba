"""A run with data workers ends, however it ends: in time, with its exit code, and no process left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFIG = """
model: {init_args: {net: {class_path: lit_models.CIFARResNet, init_args: {depth: 8, width: 2}}}}
trainer: {max_epochs: 2, enable_progress_bar: false, default_root_dir: runs}
wandb: {mode: disabled}
data:
  class_path: datamodules.Photos
  init_args: {root: data, image_size: 8, batch_size: 4, num_workers: 2, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}
"""
DEEDS = (
    "SIGTERM",
    "SIGHUP",
    "SIGINT",
    "SIGUSR1",
    "nan",
    "kill a worker",
    "stop a worker",
    "stop in mid-run",
    "stop in mid-run, then SIGTERM",
    "SIGTERM in test",
)
LESION = ["lesion", "first.ckpt", "--data", "datamodules.Photos", "--data.root", "data", "--data.image_size", "8"]
LESION += ["--data.batch_size", "2", "--data.num_workers", "2", "--wandb.mode", "disabled", "--out", "lesion"]
LESION += ["--images", "6", "--draws", "1", "--sizes", "[1]", "--runs", "[2]"]
ENDS = {
    "fit": (0, ""),
    "fit with 8 workers": (0, ""),
    "a corrupt image": (1, "data/train/cat/05.jpg is not a whole image"),
    "test": (0, ""),
    "predict": (0, ""),
    "lesion": (0, ""),
    "SIGTERM": (75, "Left after SIGTERM, saved at step 3; to go on: fathom resume"),
    "SIGHUP": (75, "Left after SIGHUP, saved at step 3; to go on: fathom resume"),
    "SIGINT": (75, "Left after SIGINT, saved at step 3; to go on: fathom resume"),
    "SIGUSR1": (75, "Left after SIGUSR1, saved at step 3; to go on: fathom resume"),
    "nan": (1, "fathom: the loss of step 3 is nan"),
    "kill a worker": (1, "fathom: a data worker died; the system kills one when memory runs out: lower data.num_worke"),
    "stop a worker": (0, ""),
    "stop in mid-run": (
        1,
        "fathom: the data workers have sent no batch for 5 s: one is stopped, or waits for",
    ),
    "stop in mid-run, then SIGTERM": (75, "Left after SIGTERM, "),
    "SIGTERM in test": (75, "Left after SIGTERM"),
}


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}


def _run(*arguments: str, folder: Path, limit: int) -> str:
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, timeout=limit
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def ends(tmp_path_factory, make_photos):
    """How each of the runs above ended."""
    top = tmp_path_factory.mktemp("ends")
    (top / "fit.yaml").write_text(CONFIG)
    make_photos(top / "data")
    checkpoint = "first.ckpt"
    saving = ["--trainer.callbacks+", "lightning.pytorch.callbacks.ModelCheckpoint"]
    saving += ["--trainer.callbacks.dirpath", str(top), "--trainer.callbacks.filename", "first"]
    arguments = {name: ["fit"] for name in ENDS} | {
        "fit": ["fit", *saving],
        "fit with 8 workers": ["fit", "--data.num_workers", "8"],
        "test": ["test", "--ckpt_path", checkpoint],
        "predict": ["predict", "--ckpt_path", checkpoint],
        "SIGTERM in test": ["test", "--ckpt_path", checkpoint],
        # Step 3 is then the last of an epoch: the next begins with a worker that is stopped.
        "stop in mid-run, then SIGTERM": ["fit", "--data.batch_size", "8"],
    }
    cases = {}
    for name, (command, *flags) in arguments.items():
        folder = top
        if name == "a corrupt image":
            folder = top / "corrupt"
            shutil.copytree(top / "data", folder / "data")
            (folder / "data" / "train" / "cat" / "05.jpg").write_text("no image")
        deed = (
            ["--trainer.callbacks+", "run_cases.Misbehave", "--trainer.callbacks.deed", name] if name in DEEDS else []
        )
        cases[name] = str(folder), [command, "--config", str(top / "fit.yaml"), *flags, *deed]
    cases["lesion"] = str(top), LESION
    (top / "cases.json").write_text(json.dumps(cases))
    return json.loads(_run(str(HERE / "run_cases.py"), "cases.json", folder=top, limit=900))


@pytest.mark.parametrize("name", ENDS)
def test_a_run_with_workers_ends(ends, name):
    code, sentence = ENDS[name]
    end = ends[name]
    assert end["code"] == code, end["output"]
    assert sentence in end["output"]
    assert "Traceback" not in end["output"]
    assert end["left"] == []


SCRIPT = """
import os, signal, sys
from datamodules import Photos
from run_cases import left_over, worker

if __name__ == "__main__":
    if os.fork():  # the script itself runs in a session of its own
        pid, status = os.wait()
        print(os.waitstatus_to_exitcode(status), left_over(pid))
        sys.exit()
    os.setsid()
    data = Photos("data", image_size=8, batch_size=4, num_workers=2, mean=(0, 0, 0), std=(1, 1, 1))
    loaders = [data.train_dataloader(), data.val_dataloader()]  # which are never dropped
    batches = [list(loader) for loader in loaders]
    os.kill(worker(), signal.SIGSTOP)
"""


def test_a_script_with_workers_ends(tmp_path, make_photos):
    make_photos(tmp_path / "data")
    assert _run("-c", SCRIPT, folder=tmp_path, limit=100).split() == ["0", "[]"]
