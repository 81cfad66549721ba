"""What a fit prints: a few lines before and after it, and one for each epoch."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import lightning as L
import pytest
import torch

from callbacks import BestCheckpoint, RunSummary
from callbacks.run.progress_lines import ProgressLines

EPOCHS = 3
BEFORE = ["experiment", "network", "data", "precision"]
AFTER = ["best", "merged", "run", "next", "W&B"]


def command(folder):
    """A whole digits fit, with W&B as it is by default."""
    flags = ["--trainer.max_epochs", str(EPOCHS), "--trainer.default_root_dir", str(folder), "--data.train_size", "128"]
    flags += ["--trainer.log_every_n_steps", "2"]
    return [sys.executable, "-m", "experiments", "fit", "--config", "vanillanet_digits", *flags]


@pytest.fixture
def environment(repository):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return plain | {"PYTHONPATH": str(repository), "TERM": "xterm", "COLUMNS": "120"}


def check(lines):
    topics = [line.split()[0] for line in lines]
    assert topics == [*BEFORE, *["epoch"] * EPOCHS, *AFTER], "\n".join(lines)
    said = dict(zip(topics, lines, strict=True))
    assert "vanillanet_digits, 3 epochs" in said["experiment"]
    assert "VanillaNet, 240,716 parameters, 3,983,972 multiply-adds" in said["network"]
    assert "Digits, 2 batches of 64 an epoch" in said["data"]
    assert "bf16-mixed on cpu" in said["precision"]
    assert re.search(r" 3/3  train/loss \d.*  val/top1 0\.\d+  λ 1  lr \S+  \d+\.\d s$", said["epoch"])
    assert re.search(r"val/top1 0\.\d+ in epoch [123]$", said["best"])
    merged = r"merged\.ckpt, 240,716 to 148,778 parameters, logits differ by up to \d\.\de-\d+$"
    assert re.search(merged, said["merged"])
    assert "fathom test --ckpt_path" in said["next"]
    return said["W&B"].removeprefix("W&B").strip()


def test_in_a_pipe_it_is_those_lines(environment, tmp_path):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 240}
    done = subprocess.run(command(tmp_path), env=environment, cwd=tmp_path, **options)
    assert done.returncode == 0, done.stdout
    sync = check(done.stdout.splitlines())
    found = subprocess.run(sync.replace("wandb sync", "echo"), shell=True, text=True, capture_output=True, check=True)
    assert "offline-run-" in found.stdout


def test_on_a_terminal_those_lines_stay_and_the_bar_goes(environment, tmp_path):
    ours, theirs = pty.openpty()
    words, streams = command(tmp_path), {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(words, env=environment, cwd=tmp_path, **streams)
    os.close(theirs)
    said = bytearray()
    with suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = said.decode()
    assert re.search(r"Epoch \d/2", text)  # the bar
    check([line for line in screen(text) if line])


def screen(text):
    """Lines that are left on a terminal: cursor up, to the left, and erasure of a line are what the bar uses."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row - len(lines) + 1)
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b["):
            if piece.endswith("A"):
                row -= int(piece[2:-1] or 1)
            elif piece == "\x1b[2K":
                lines[row] = ""
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


class OfTheUser(L.LightningModule):
    """Which logs neither loss nor accuracy under the names of Fathom, and has no validation."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sum()
        self.log("my_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(2, 1))


def test_any_module_has_its_lines(tmp_path, capsys):
    lines = [RunSummary(), ProgressLines("mine"), BestCheckpoint(monitor="my_loss", filename="best")]
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(default_root_dir=tmp_path, max_epochs=2, callbacks=lines, **options)
    trainer.fit(OfTheUser())
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [*BEFORE, "epoch", "epoch", "best", "run", "next"]
    assert "OfTheUser, 2 parameters" in said[1]
    assert "my_loss" in said[4]
