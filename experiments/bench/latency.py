"""How long a network takes for images, in each form in which it can be run, beside the floors of the machine."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import timm
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from callbacks.run.run_summary import hardware
from experiments.bench.official_form import STAGES, official_form
from experiments.bench.timing import in_turn, now, ratio_and_spread
from experiments.errors import UsageError
from experiments.internals import compile_ahead, load_compiled, weights_packed_once
from lit_models import VanillaNet
from lit_models.cost import count_macs, count_parameters

Form = Literal["eager", "compiled", "packed", "aoti", "onnx"]
Layout = Literal["contiguous", "channels_last"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Run = Callable[[], object]


@dataclass
class Contender:
    """A network in one form."""

    network: str
    form: str
    layout: str
    run: Run
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What all contenders of a table have in common."""

    batch: int
    precision: str
    image_size: int
    width: int
    device: torch.device

    def images(self, layout: Layout, form: Form = "eager") -> Tensor:
        """(N, 3, S, S)."""
        shape = (self.batch, 3, self.image_size, self.image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return _laid_out(images.to(self.device, DTYPES[self.precision]), layout)

    def network(self, name: str) -> nn.Module:
        """With weights of a seed, in evaluation mode; VanillaNet merged."""
        torch.manual_seed(0)
        net: nn.Module
        if match := re.fullmatch(r"vanillanet(\d+)", name):
            net = VanillaNet(1000, depth=int(match[1]), width=self.width, reparameterized=True)
        elif match := re.fullmatch(r"official vanillanet(\d+)", name):
            net = official_form(int(match[1]), width=self.width)
        else:
            net = timm.create_model(name)
        return net.to(self.device, DTYPES[self.precision]).eval().requires_grad_(False)


def latency(
    networks: tuple[str, ...] = ("vanillanet5", "resnet50"),
    batches: tuple[int, ...] = (1,),
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16"),
    forms: tuple[Form, ...] = get_args(Form),
    layouts: tuple[Layout, ...] = ("channels_last",),
    image_size: int = 224,
    width: int = 512,
    rounds: int = 7,
    threads: int = 1,
) -> None:
    """Time forward passes of merged VanillaNets, in each form, beside the authors' deploy form and networks of timm.

    The deploy form runs as published: PyTorch, contiguous. All contenders of a table run in turns, and a ratio is taken
    within the round. With one thread on a CPU, seconds are those that the process has had, so that other processes
    disturb little. Compiling takes a minute for each network; all of it, with 5, 9, 13 and a network of equal accuracy
    (--networks '[vanillanet5,vanillanet9,vanillanet13,resnet50,convnext_tiny]' --batches '[1,32]'
    --layouts '[contiguous,channels_last]'), takes hours.

    Args:
        networks: vanillanet5, 6, 9 and 13, and names of timm.
        batches: numbers of images; a table for each, and each precision.
        precisions: of weights and images.
        forms: eager, compiled (torch.compile), packed (compiled with weights in the layout of their kernels), aoti
            (AOTInductor), onnx (ONNX Runtime, float32 on a CPU).
        layouts: of weights and images in PyTorch.
        image_size: side of the images.
        width: of the VanillaNets' stem.
        rounds: turns of each.
        threads: of the CPU.
    """
    known = [f"vanillanet{depth}" for depth in STAGES]
    if unknown := [name for name in networks if name not in known and not timm.is_model(name)]:
        raise UsageError(f"--networks {unknown[0]}: there are {', '.join(known)} and the networks of timm")
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for batch, precision in product(batches, precisions):
        setting = Setting(batch, precision, image_size, width, device)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            contenders = list(_contenders(setting, networks, forms, layouts, Path(folder), threads))
            floors = _floors(setting)
            _time([*contenders, *floors], rounds, device, threads)
            Console(width=140).print(_table(setting, contenders, floors, rounds, threads))


def _contenders(
    setting: Setting,
    networks: tuple[str, ...],
    forms: tuple[Form, ...],
    layouts: tuple[Layout, ...],
    folder: Path,
    threads: int,
) -> Iterator[Contender]:
    for name in networks:
        if name.startswith("vanillanet"):
            official = f"official {name}"
            yield Contender(official, "eager", "contiguous", _eager(setting, official, "contiguous"))
        for form, layout in product(forms, layouts):
            if form == "onnx":
                if layout == layouts[0] and setting.precision == "float32" and setting.device.type == "cpu":
                    yield Contender(name, form, "", _onnx(setting, name, folder, threads))
            else:
                make = {"eager": _eager, "compiled": _compiled, "packed": _packed, "aoti": _aoti}[form]
                yield Contender(name, form, layout, make(setting, name, layout))


def _eager(setting: Setting, name: str, layout: Layout) -> Run:
    net, images = _laid_out(setting.network(name), layout), setting.images(layout)
    return lambda: net(images)


def _compiled(setting: Setting, name: str, layout: Layout) -> Run:
    net, images = _laid_out(setting.network(name), layout), setting.images(layout)
    fast: Any = torch.compile(net, dynamic=False)
    fast(images)
    return lambda: fast(images)


def _packed(setting: Setting, name: str, layout: Layout) -> Run:
    with weights_packed_once():
        return _compiled(setting, name, layout)


def _aoti(setting: Setting, name: str, layout: Layout) -> Run:
    net, images = _laid_out(setting.network(name), layout), setting.images(layout)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad(), weights_packed_once():
        example = images.clone()
        compile_ahead(torch.export.export(net, (example,), strict=False), Path(folder) / "net.pt2")
        fast = load_compiled(Path(folder) / "net.pt2")
    return lambda: fast(images)


def _onnx(setting: Setting, name: str, folder: Path, threads: int) -> Run:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is missing: pip install 'fathom-depth[export]', or leave onnx out of --forms"
        ) from error
    images, path = setting.images("contiguous"), folder / f"{name}.onnx"
    with torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(setting.network(name), (images.clone(),), path, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)


def _laid_out(what: Any, layout: Layout) -> Any:
    return what.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)


SIDE, BYTES = 1024, 256 << 20


def _floors(setting: Setting) -> list[Contender]:
    """A matrix product of SIDE³ multiply-adds in the precision, and a read of BYTES from memory."""
    matrix = torch.randn(SIDE, SIDE, device=setting.device).to(DTYPES[setting.precision])
    memory = torch.zeros(BYTES // 4, device=setting.device)
    return [
        Contender("matrix product", "", "", lambda: matrix @ matrix),
        Contender("read", "", "", lambda: memory.sum()),
    ]


def _time(contenders: list[Contender], rounds: int, device: torch.device, threads: int) -> None:
    own_time = device.type == "cpu" and threads == 1
    clock: Callable[[], float] = time.process_time if own_time else lambda: now(device)
    for contender in contenders:
        contender.run()
    for number in track(range(rounds), "rounds", console=Console(stderr=True)):
        for contender in in_turn(contenders, number):
            start = clock()
            contender.run()
            contender.seconds.append(clock() - start)


def _table(setting: Setting, contenders: list[Contender], floors: list[Contender], rounds: int, threads: int) -> Table:
    product_seconds, read_seconds = (min(floor.seconds) for floor in floors)
    macs_a_second, bytes_a_second = SIDE**3 / product_seconds, BYTES / read_seconds
    table = Table(
        title=f"batch {setting.batch}, {setting.precision}, {setting.image_size} px, {hardware(setting.device)},"
        f" {threads} threads, {rounds} rounds; matrix products {macs_a_second / 1e9:.0f} G multiply-adds a second,"
        f" memory {bytes_a_second / 1e9:.1f} GB a second",
        title_justify="left",
    )
    for column in (
        "network",
        "form",
        "layout",
        "ms",
        "fastest–slowest",
        "of official",
        "floor: multiply-adds",
        "weights",
    ):
        table.add_column(column, justify="left" if column in ("network", "form", "layout") else "right")
    official: list[float] | None = None
    costs: dict[str, tuple[int, int]] = {}
    for contender in contenders:
        if contender.network.startswith("official"):
            official = contender.seconds
        elif not contender.network.startswith("vanillanet"):
            official = None
        if contender.network not in costs:
            net = setting.network(contender.network).float()
            size = (3, setting.image_size, setting.image_size)
            costs[contender.network] = count_macs(net, size), count_parameters(net)
        macs, parameters = costs[contender.network]
        seconds = contender.seconds
        width = torch.finfo(DTYPES[setting.precision]).bits // 8
        table.add_row(
            contender.network,
            contender.form,
            contender.layout,
            f"{1000 * median(seconds):.1f}",
            f"{1000 * min(seconds):.1f}–{1000 * max(seconds):.1f}",
            ratio_and_spread(seconds, official)[0] if official else "",
            f"{1000 * setting.batch * macs / macs_a_second:.1f}",
            f"{1000 * width * parameters / bytes_a_second:.1f}",
        )
    return table
