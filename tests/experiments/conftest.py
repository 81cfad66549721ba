"""A run of a net so small that it takes no time."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import lightning  # noqa: F401  # now, as its log handler keeps the stderr of this moment, not that of one test
import pytest

from experiments.__main__ import main

TINY = """
model:
  init_args:
    net: {class_path: lit_models.CIFARResNet, init_args: {depth: 8, width: 4}}
data:
  class_path: datamodules.Digits
  init_args: {image_size: 8, batch_size: 32, train_size: 64}
trainer: {max_epochs: 1, enable_progress_bar: false, limit_val_batches: 1, limit_test_batches: 1}
wandb: {mode: disabled}
"""


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """A configuration of two training steps."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory):
    """Its run directory, whole and finished."""
    root = tmp_path_factory.mktemp("tiny") / "runs"
    assert main(["fit", "--config", str(tiny_config), "--trainer.default_root_dir", str(root)]) == 0
    (run_directory,) = root.glob("tiny/*")
    return run_directory


@pytest.fixture
def fathom(capsys):
    """Runs a command: exit code, and the sentence it ends with."""

    def run(*args):
        code = main([str(arg) for arg in args])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        sentences = [line.removeprefix("fathom: ") for line in error.splitlines() if line.startswith("fathom: ")]
        assert len(sentences) == (code != 0)
        return code, "".join(sentences)

    return run


@pytest.fixture
def unprivileged():
    """A folder that everyone may enter, and a context in which root is somebody who may not read and write all."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextmanager
    def somebody():
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if os.getuid() == 0:
                os.seteuid(0)

    yield folder, somebody
    shutil.rmtree(folder)


@pytest.fixture
def digits_folder(tmp_path):
    """Twenty images in each of two classes, in class folders with such names."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for part, wanted in (("train", range(20)), ("test", range(20, 24))):
        for label, name in ((0, "영 zero"), (1, "하나 one")):
            folder = tmp_path / "digits" / part / name
            folder.mkdir(parents=True)
            images = digits.images[digits.target == label]
            for i in wanted:
                Image.fromarray((images[i] * 15).astype("uint8")).save(folder / f"{i}.png")
    return tmp_path / "digits"
