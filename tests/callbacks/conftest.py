"""Real fits of a VanillaNet so small that they take no time."""

import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_models import ImageClassifier, VanillaNet


def _data(count: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 16, 16, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(count) % 4), batch_size=2)


def _model() -> ImageClassifier:
    torch.manual_seed(0)
    net = VanillaNet(4, depth=5, width=4, stem_kernel=2, stem_stride=2, series_order=1)
    return ImageClassifier(net, 4, optimizer="adamw", lr=1e-3, schedule="constant")


def _fit(path, *callbacks, module=None, validate=True, ckpt_path=None, **arguments) -> ImageClassifier:
    module = module or _model()
    trainer = L.Trainer(
        default_root_dir=path,
        callbacks=list(callbacks),
        accelerator="cpu",
        **{"logger": False, "enable_progress_bar": False, "enable_model_summary": False, **arguments},
    )
    trainer.fit(module, _data(), _data() if validate else None, ckpt_path=ckpt_path, weights_only=True)
    return module


@pytest.fixture
def data():
    return _data


@pytest.fixture
def model():
    return _model


@pytest.fixture
def fit():
    return _fit


@pytest.fixture
def run_on_ranks(repository):
    """Runs ddp_worker.py on real processes: what each of them recorded."""

    def run(directory, *options, devices=2):
        directory.mkdir()
        worker = Path(__file__).with_name("ddp_worker.py")
        command = [sys.executable, worker, directory, "--devices", str(devices), *options]
        environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-4000:]
        assert "find_unused_parameters" not in done.stderr
        return [torch.load(directory / f"rank{rank}.pt", weights_only=True) for rank in range(devices)]

    return run
