"""Two real processes beside one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
import torch
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric
from datamodules import Digits

class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(64, 10)
        self.count = MeanMetric()
        self.steps, self.evaluated = [], []

    def loss(self, batch):
        images, targets = batch
        return torch.nn.functional.cross_entropy(self.net(images.flatten(1)), targets)

    def digests(self, batch):
        # An image is named by its pixels, exactly.
        return [hash(image.contiguous().numpy().tobytes()) for image in batch[0]]

    def training_step(self, batch, batch_idx):
        self.steps.append([self.trainer.current_epoch, self.digests(batch)])
        return self.loss(batch)

    def test_step(self, batch, batch_idx):
        self.evaluated += self.digests(batch)
        self.count.update(batch[1].float())
        self.log("mean_label", self.count)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

folder, world_size, batch_size, sampler = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"
model = Recorder()
data = Digits(image_size=8, batch_size=batch_size, eval_batch_size=101, val_fraction=0, erasing=0.5, seed=3)
trainer = Trainer(
    max_epochs=2, accelerator="cpu", devices=world_size, strategy="ddp" if world_size > 1 else "auto",
    logger=False, enable_progress_bar=False, enable_checkpointing=False, use_distributed_sampler=sampler,
)
trainer.fit(model, datamodule=data)
mean_label = trainer.test(model, datamodule=data)[0]["mean_label"]
with open(f"{folder}/{trainer.global_rank}.json", "w") as file:
    json.dump({"steps": model.steps, "evaluated": model.evaluated, "mean_label": mean_label}, file)
"""


def _run(folder: Path, world_size: int, batch_size: int, sampler: bool = False) -> list[dict]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
    }
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(world_size), str(batch_size), str(sampler)]
    ranks = [
        subprocess.Popen(
            arguments,
            env=environment | ({"NODE_RANK": "0", "LOCAL_RANK": str(rank)} if world_size > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    for process in ranks:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world_size)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process with batches of 128, and two with 64 and Lightning's sampler switched on."""
    folder = tmp_path_factory.mktemp("runs")
    return _run(folder / "one", 1, 128)[0], _run(folder / "two", 2, 64, sampler=True)


def test_two_ranks_train_on_the_same_images_as_one_process_step_by_step(runs):
    one, two = runs
    assert len(one["steps"]) == len(two[0]["steps"]) == len(two[1]["steps"]) == 2 * 12
    for (epoch, images), *parts in zip(one["steps"], two[0]["steps"], two[1]["steps"], strict=True):
        assert [part[0] for part in parts] == [epoch, epoch]
        assert sorted(parts[0][1] + parts[1][1]) == sorted(images)
        assert len(set(images)) == len(images)
    for epoch in (0, 1):
        assert sum(len(images) for e, images in one["steps"] if e == epoch) == 1438


def test_two_ranks_evaluate_every_image_once_with_unequal_numbers_of_batches(runs):
    one, two = runs
    # 359 test images in batches of 101: 180 and 179 images.
    assert [len(rank["evaluated"]) for rank in two] == [180, 179]
    assert sorted(two[0]["evaluated"] + two[1]["evaluated"]) == sorted(one["evaluated"])
    for rank in two:
        assert rank["mean_label"] == pytest.approx(one["mean_label"], abs=1e-6)
