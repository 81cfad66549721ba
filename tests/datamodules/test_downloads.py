"""Three ranks and one download, by a pretended reader that is as careless about others as torchvision's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import datamodules

RANK = """
import sys, time
from pathlib import Path
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torchvision import datasets
import datamodules

class Reader:
    def __init__(self, root, train=True, download=False, split=None):
        path = Path(root) / "archive"
        if download and not path.exists():
            with open(path, "x") as file:  # another that is at it gets an error
                time.sleep(1)
                file.write("whole")
        if not path.exists() or path.read_text() != "whole":
            raise RuntimeError("Dataset not found or corrupted")
        side, channels = (28, ()) if name == "FashionMNIST" else (32, (3,))
        shape = (40, 3, side, side) if name == "SVHN" else (40, side, side, *channels)
        self.data = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self.labels = np.arange(40) % 10
        self.targets = self.labels.tolist()
        if name == "FashionMNIST":
            self.data, self.targets = torch.from_numpy(self.data), torch.from_numpy(self.labels)

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.LazyLinear(10)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

name, root = sys.argv[1:]
Reader.__name__ = name
classes = getattr(datasets, name).__dict__.get("classes")
if classes:
    Reader.classes = classes
setattr(datasets, name, Reader)
kind = getattr(datamodules, name)
kind._reader = Reader
data = kind(root, download=True, batch_size=4, val_fraction=0)
model = Model()
model.net(torch.zeros(1, data.in_channels * data.image_size**2))
trainer = Trainer(
    max_epochs=1, accelerator="cpu", devices=3, strategy="ddp", logger=False, enable_progress_bar=False,
    enable_checkpointing=False, use_distributed_sampler=False,
)
trainer.fit(model, datamodule=data)
print(trainer.global_step)
"""


@pytest.mark.parametrize(
    "name", ["CIFAR10", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SVHN", "FashionMNIST"))]
)
def test_ranks_download_once(tmp_path, free_port, name):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port,
        "WORLD_SIZE": "3",
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, name, str(tmp_path)],
            env=environment | {"LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    for process in ranks:
        output, messages = process.communicate(timeout=120)
        assert process.returncode == 0, messages
        assert output.split()[-1] == "4"


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN", "FashionMNIST"])
def test_what_is_known_of_a_data_set_needs_no_files(tmp_path, name):
    data = getattr(datamodules, name)(str(tmp_path), download=True)
    assert len(set(data.class_names)) == data.num_classes
    assert len(data.mean) == len(data.std) == data.in_channels
    assert list(tmp_path.iterdir()) == []
