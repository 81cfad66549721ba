"""What several rooms' tests share."""

import os

# The networks here are small: more threads would wait for each other, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import lightning  # noqa: F401  # now, as its log handler keeps the stderr of this moment, not that of one test
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from experiments.__main__ import main

REPOSITORY = Path(__file__).parents[1]
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


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=0, help="how many checkpoints and configurations are mutated")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Caches of the tests are the tests' own."""
    os.environ["FATHOM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data():
    """Folder of real image archives; tests that need one skip without it."""
    folder = Path(os.environ.get("FATHOM_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real image archives in {folder} (set FATHOM_DATA)")
    return folder


def on_fake_cuda(tensor):
    """One of the same shape and strides on a CUDA device that need not exist, within ``FakeTensorMode``."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cuda")


@pytest.fixture
def fake_cuda():
    """``FakeTensorMode``, and what moves a module or a batch to its CUDA device.

    A tensor left on another device raises, and so does any value read back on the host.
    """

    def move(thing):
        if isinstance(thing, torch.Tensor):
            return on_fake_cuda(thing)
        if not isinstance(thing, torch.nn.Module):
            return type(thing)(*(move(part) if isinstance(part, torch.Tensor) else part for part in thing))
        for module in thing.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None:
                        fake = on_fake_cuda(tensor)
                        table[name] = torch.nn.Parameter(fake) if name in module._parameters else fake
            for name in getattr(module, "_defaults", ()):  # the state of a metric
                setattr(module, name, on_fake_cuda(getattr(module, name)))
        return thing

    return FakeTensorMode(), move


@pytest.fixture
def fake_cuda_forward():
    """The logits of a network with everything on such a device, for images of a shape."""

    def forward(net, *shape):
        with FakeTensorMode():
            state = {
                name: on_fake_cuda(tensor)
                for tensors in (net.named_parameters(), net.named_buffers())
                for name, tensor in tensors
            }
            return functional_call(net, state, (torch.empty(*shape, device="cuda"),))

    return forward


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory):
    """The run directory of one whole quickstart, and what it printed."""
    from experiments.commands.quickstart import quickstart

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        quickstart(runs=str(tmp_path_factory.mktemp("quickstart") / "runs"))
    run_directory = Path(printed.getvalue().split("the run is in ")[1].split("\n")[0])
    return run_directory, printed.getvalue()


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
