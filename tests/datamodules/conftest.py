from __future__ import annotations

import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of the test's own."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FATHOM_CACHE", str(path))
    return path


@pytest.fixture(scope="session")
def caltech(real_data, tmp_path_factory) -> Path:
    """Real photos in 25 classes."""
    path = tmp_path_factory.mktemp("caltech")
    with zipfile.ZipFile(real_data / "caltech101-25.zip") as file:
        file.extractall(path)
    return path


@pytest.fixture(scope="session")
def cifar(real_data, tmp_path_factory) -> Path:
    """60 training and 20 test images of each class of CIFAR-10, as JPEG files."""
    path = tmp_path_factory.mktemp("cifar")
    with zipfile.ZipFile(real_data / "cifar10-jpeg.zip") as file:
        for name in file.namelist():
            part, number = name.split("/")[0], int(Path(name).stem)
            if number < (60 if part == "train" else 20):
                file.extract(name, path)
    return path


@pytest.fixture(scope="session")
def make_photos():
    """Writes a made-up data set: 12 training and 3 test photos of 40×30 noise in each of two classes."""

    def make(root: Path, training: int = 12) -> Path:
        rng = np.random.default_rng(0)
        for part, count in (("train", training), ("test", 3)):
            for name in ("cat", "dog"):
                (root / part / name).mkdir(parents=True)
                for i in range(count):
                    image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
                    image.save(root / part / name / f"{i:02}.jpg")
        return root

    return make


@pytest.fixture
def folder(tmp_path, make_photos) -> Path:
    """Such a data set."""
    return make_photos(tmp_path / "data")


@pytest.fixture
def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small batches gain nothing from threads, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
