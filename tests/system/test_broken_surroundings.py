"""A full disk, a folder that may not be written, data that vanish, Weights & Biases that is gone."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from callbacks import RunSummary
from lit_models.checkpoints import read_checkpoint, write_atomically

HERE = Path(__file__).parent


@contextmanager
def limited_files():
    """Gives a function that sets a largest size of files: the write that crosses it fails, as on a full disk.

    It ends with the block, before pytest writes to a log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def in_second_epoch(monkeypatch):
    """Does something when the second epoch begins."""

    def register(action):
        def hook(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                action(Path(trainer.default_root_dir))

        monkeypatch.setattr(RunSummary, "on_train_epoch_start", hook)

    return register


def test_a_failed_write_names_the_file_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "last.ckpt"
    write_atomically({"weight": torch.ones(10)}, path)
    with limited_files() as limit:
        limit(30_000)
        with pytest.raises(OSError, match=r"File too large: .*last\.ckpt"):
            write_atomically({"weight": torch.zeros(20_000)}, path)
    assert torch.load(path, weights_only=True)["weight"].tolist() == [1] * 10
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(in_second_epoch, tiny_config, fathom, tmp_path):
    kept = {}
    flags = ("--trainer.default_root_dir", tmp_path, "--trainer.max_epochs", 4)
    with limited_files() as limit:

        def fill(run_directory):
            path = run_directory / "checkpoints" / "last.ckpt"
            kept["step"] = read_checkpoint(path)["global_step"]
            limit(path.stat().st_size // 2)

        in_second_epoch(fill)
        code, sentence = fathom("fit", "--config", tiny_config, *flags)
    assert code == 1
    (run_directory,) = tmp_path.glob("tiny/*")
    assert sentence.startswith(f"{run_directory}/checkpoints/")
    assert sentence.endswith(".ckpt: File too large: make room, and go on from the last checkpoint")
    assert kept["step"] == 2
    assert read_checkpoint(run_directory / "checkpoints" / "last.ckpt")["global_step"] == 2
    for path in (run_directory / "checkpoints").iterdir():
        read_checkpoint(path)  # all are whole
    assert json.loads((run_directory / "summary.json").read_text())["status"] == "failed"


def test_a_disk_too_full_for_anything_is_still_one_sentence(in_second_epoch, tiny_config, fathom, tmp_path):
    flags = ("--trainer.default_root_dir", tmp_path, "--trainer.max_epochs", 4)
    with limited_files() as limit:
        in_second_epoch(lambda _: limit(0))
        with pytest.warns(UserWarning, match=r"summary\.json was not written"):
            code, sentence = fathom("fit", "--config", tiny_config, *flags)
    assert code == 1
    assert "File too large: make room" in sentence


def test_a_folder_that_may_not_be_written_is_named(tiny_config, fathom, unprivileged):
    folder, somebody = unprivileged
    config = shutil.copy(tiny_config, folder)
    folder.chmod(0o555)
    with somebody():
        code, sentence = fathom("fit", "--config", config, "--trainer.default_root_dir", folder / "runs")
    folder.chmod(0o755)
    assert (code, sentence) == (1, f"{folder / 'runs'}: Permission denied")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_photo_that_vanishes_is_named(num_workers, in_second_epoch, tiny_config, fathom, tmp_path):
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / "train" / name).mkdir(parents=True)
        for i in range(8):
            Image.effect_noise((20, 20), 40 + i).convert("RGB").save(photos / "train" / name / f"{i}.jpg")
    in_second_epoch(lambda _: shutil.rmtree(photos / "train" / "dog"))
    data = ("--data", "datamodules.Photos", "--data.root", photos, "--data.num_workers", num_workers)
    shape = ("--data.image_size", 8, "--data.batch_size", 4, "--data.train_size", 12)
    flags = ("--trainer.default_root_dir", tmp_path / "runs", "--trainer.max_epochs", 4)
    code, sentence = fathom("fit", "--config", tiny_config, *data, *shape, *flags)
    assert code == 1
    assert f"{photos}/train/dog/" in sentence
    assert "No such file or directory" in sentence
    assert len(sentence) < 300
    (last,) = tmp_path.glob("runs/tiny/*/checkpoints/last.ckpt")
    assert read_checkpoint(last)["global_step"] == 3


def started(script, *flags, **environment):
    """A fit in a process of its own, since W&B's settings and its process are those of the whole process."""
    return subprocess.Popen(
        [sys.executable, *script, *map(str, flags)],
        # Not those of W&B: a process of this one's would serve the fit as well.
        env={name: value for name, value in os.environ.items() if "WANDB" not in name} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parents[1],
    )


def test_training_goes_on_without_wandb_or_does_not_begin(tiny_config, tmp_path):
    """Its process is killed in mid-run, and it is not to be reached online: the two at once, to save time."""
    canary = "0123456789abcdef" * 2 + "CANARY00"
    config = ("--config", tiny_config, "--trainer.default_root_dir", tmp_path)
    epochs = ("--trainer.max_epochs", 4, "--trainer.log_every_n_steps", 1)
    killed = started((HERE / "wandb_worker.py",), *config, *epochs, "--wandb.mode", "offline")
    unreachable = started(
        *(("-m", "experiments", "fit"), *config, "--wandb.mode", "online"),
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY=canary,
    )
    _, messages = killed.communicate(timeout=240)
    assert killed.returncode == 0, messages
    assert messages.count("killed\n") == 1
    assert messages.count("Weights & Biases is gone") == 1
    assert "Traceback" not in messages
    finished = [path for path in tmp_path.glob("tiny/*") if (path / "metrics.csv").exists()]
    assert len(finished) == 1
    assert json.loads((finished[0] / "summary.json").read_text())["status"] == "finished"
    with open(finished[0] / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows if row["val/top1"]] == [0, 1, 2, 3]

    _, messages = unreachable.communicate(timeout=240)
    assert unreachable.returncode == 1, messages
    (sentence,) = [line for line in messages.splitlines() if line.startswith("fathom: ")]
    assert "Connection refused" in sentence
    assert "--wandb.mode offline" in sentence
    assert canary not in messages
    assert len(list(tmp_path.glob("tiny/*/checkpoints"))) == 1
