"""What several rooms' tests share."""

import os

# The networks here are small: more threads would wait for each other, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

REPOSITORY = Path(__file__).parents[1]


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
