"""What several rooms' tests share."""

import multiprocessing
import os

# The networks here are small: more threads would wait for each other, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import inspect
import io
import shutil
import tempfile
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import lightning  # noqa: F401  # now, as its log handler keeps the stderr of this moment, not that of one test
import pytest
import torch
from filelock import FileLock
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import lit_models.networks
from experiments.__main__ import main
from lit_models.errors import NetworkError

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
    parser.addoption("--kills", type=int, default=20, help="how often a run of the drill is killed (with -m drill)")
    parser.addoption("--accelerator", default="cpu", help="on which the drill trains: cpu, or gpu (with -m drill)")
    parser.addoption("--fuzz", type=int, default=0, help="how many checkpoints and configurations are mutated")


class SmallNetwork(NamedTuple):
    """A network of ``lit_models.networks`` for grey images of ten classes, as small as its arguments make it."""

    build: partial
    image_size: int
    parameters: int


@cache
def every_network():
    """Whatever public class of those files can be built from a number of classes, by name."""
    modules = [import_module(f"lit_models.networks.{file.name}") for file in iter_modules(lit_models.networks.__path__)]
    return {
        name: as_small_as_can_be(kind)
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and name[0] != "_" and takes_classes(kind)
    }


def takes_classes(kind):
    parameters = inspect.signature(kind).parameters
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    return issubclass(kind, torch.nn.Module) and "num_classes" in parameters and needed <= {"num_classes", "name"}


def as_small_as_can_be(kind):
    small = {"num_classes": 10, "in_channels": 1, "width": 4, "name": "test_resnet"}
    given = {name: value for name, value in small.items() if name in inspect.signature(kind).parameters}
    depths = ({"depth": depth} for depth in range(1, 100)) if "depth" in inspect.signature(kind).parameters else ({},)
    for depth in depths:
        build = partial(kind, **given, **depth)
        with suppress(NetworkError), torch.device("meta"):
            net = build()
            break
    for image_size in (8, 16, 32, 64, 128, 224):
        with suppress(NetworkError, RuntimeError):
            net(torch.empty(2, 1, image_size, image_size, device="meta"))
            break
    return SmallNetwork(build, image_size, sum(parameter.numel() for parameter in net.parameters()))


def pytest_generate_tests(metafunc):
    """``any_network`` is every network, ``small_network`` those quickly run, ``tiny_network`` those quickly trained."""
    for name, limit in (("any_network", float("inf")), ("small_network", 2e7), ("tiny_network", 1e6)):
        if name in metafunc.fixturenames:
            found = {name: network for name, network in every_network().items() if network.parameters < limit}
            metafunc.parametrize(name, found.values(), ids=found)


@pytest.fixture(scope="module", autouse=True)
def start_method():
    """litdata changes how processes start, for the whole process; no file of tests leaves that to the next."""
    before = multiprocessing.get_start_method(allow_none=True)
    yield
    multiprocessing.set_start_method(before, force=True)


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
def quickstart_run(tmp_path_factory, request):
    """The run directory of one whole quickstart, and what it printed; the test processes share it."""
    from experiments.commands.quickstart import quickstart

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "quickstart"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        said = folder / "printed.txt"
        if not said.is_file():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                quickstart(runs=str(folder / "runs"))
            said.write_text(printed.getvalue())
    printed = said.read_text()
    return Path(printed.split("the run is in ")[1].split("\n")[0]), printed


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
def seen_with():
    """A context for what a fence of private names promises: a failure in it names the package and both releases."""

    @contextmanager
    def seen_with(fence, package):
        try:
            yield
        except (AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
            pytest.fail(
                f"{package} {version(package)} has changed what {fence.__name__} uses; it was seen with"
                f" {fence.SEEN_WITH[package]}: {type(error).__name__}: {error}"
            )

    return seen_with


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


def bright_square(number):
    """A dark photo of 64×48 pixels, uint8 (48, 64, 3), with one bright square in one of two colours, and its place."""
    import numpy as np

    random = np.random.default_rng(number)
    photo = random.integers(0, 40, (48, 64, 3), dtype=np.uint8)
    left, top, side = int(random.integers(0, 40)), int(random.integers(0, 24)), 20 + number % 4
    photo[top : top + side, left : left + side, number % 2] = 220
    return photo, (left, top, left + side, top + side)


SQUARES = {"train": range(12), "val": range(12, 17), "test": range(17, 20)}
"""Numbers of the photos of each part."""


@pytest.fixture(scope="session")
def voc_tree(tmp_path_factory):
    """A folder in the layout of Pascal VOC; the last training photo has no object."""
    from PIL import Image

    root = tmp_path_factory.mktemp("voc")
    year = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "ImageSets/Segmentation", "SegmentationClass"):
        (year / folder).mkdir(parents=True)
    for part, numbers in SQUARES.items():
        for image_set in ("Main", "Segmentation"):
            (year / "ImageSets" / image_set / f"{part}.txt").write_text("".join(f"{n:06}\n" for n in numbers))
        for number in numbers:
            photo, (left, top, right, bottom) = bright_square(number)
            Image.fromarray(photo).save(year / "JPEGImages" / f"{number:06}.jpg", quality=95)
            mask = Image.new("P", (64, 48))
            mask.putpalette([*range(256)] * 3)  # of fewer colours, 255 would be written with fewer bits
            mask.paste(number % 2 + 1, (left, top, right, bottom))
            mask.paste(255, (0, 0, 64, 2))
            mask.save(year / "SegmentationClass" / f"{number:06}.png")
            box = f"<bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right + 1}</xmax>"
            box += f"<ymax>{bottom + 1}</ymax></bndbox><difficult>0</difficult>"
            one = f"<object><name>{('red', 'green')[number % 2]}</name>{box}</object>" if number != 11 else ""
            size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
            (year / "Annotations" / f"{number:06}.xml").write_text(f"<annotation>{size}{one}</annotation>")
    return root


@pytest.fixture(scope="session")
def street_tree(voc_tree, tmp_path_factory):
    """Its photos and masks in the layout of CamVid: ``images/``, ``masks/`` and lists of names."""
    root, year = tmp_path_factory.mktemp("streets"), voc_tree / "VOCdevkit" / "VOC2007"
    shutil.copytree(year / "JPEGImages", root / "images")
    shutil.copytree(year / "SegmentationClass", root / "masks")
    for part in SQUARES:
        shutil.copy(year / "ImageSets" / "Segmentation" / f"{part}.txt", root)
    return root


@pytest.fixture(scope="session")
def coco_tree(voc_tree, tmp_path_factory):
    """Its photos and objects in the layout of COCO, with the categories 3 and 7; photo 0 has a crowd.

    Every third object says that it is small, and every third that it is large.
    """
    import json

    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    categories = [{"id": 7, "name": "green"}, {"id": 3, "name": "red"}]
    for part, numbers in SQUARES.items():
        (root / f"{part}2017").mkdir()
        images, objects = [], []
        for number in numbers:
            shutil.copy(voc_tree / "VOCdevkit" / "VOC2007" / "JPEGImages" / f"{number:06}.jpg", root / f"{part}2017")
            images.append({"id": 100 + number, "file_name": f"{number:06}.jpg", "height": 48, "width": 64})
            _, (left, top, right, bottom) = bright_square(number)
            one = {"id": number + 1, "image_id": 100 + number, "category_id": (3, 7)[number % 2], "iscrowd": 0}
            polygon = [left, top, right, top, right, bottom, left, bottom]
            area = {"area": (99.5, 9999.5)[number % 3]} if number % 3 < 2 else {}
            objects.append({**one, **area, "bbox": [left, top, right - left, bottom - top], "segmentation": [polygon]})
        if part == "train":
            one = {"id": 99, "image_id": 100, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 64, 20]}
            runs = [0, *[20, 28] * 64]  # down the columns
            objects.append({**one, "segmentation": {"size": [48, 64], "counts": runs}})
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return root
