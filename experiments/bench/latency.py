"""How long a network takes for images, in each form in which it can be run, beside the floors of the machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import get_args

import timm
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from callbacks.run.run_summary import hardware, provenance
from experiments.bench.forms import DTYPES, Form, Layout, Precision, Run, Setting, check_packages, prepare
from experiments.bench.latency_page import COLUMNS, cells, heading, page, setting_of
from experiments.bench.official_form import STAGES
from experiments.bench.timing import clock_of, in_turn, ratio_and_spread
from experiments.device import best_device
from experiments.errors import UsageError
from experiments.unravel.records import Record, read_records, write_records
from lit_models.cost import count_macs, count_parameters
from lit_models.files import atomic


@dataclass
class Contender:
    """A network in one form."""

    network: str
    form: str
    layout: str
    run: Run
    seconds: list[float] = field(default_factory=list)


def latency(
    networks: tuple[str, ...] = ("vanillanet5", "resnet50"),
    batches: tuple[PositiveInt, ...] = (1,),
    precisions: tuple[Precision, ...] = ("float32", "bfloat16"),
    forms: tuple[Form, ...] = get_args(Form),
    layouts: tuple[Layout, ...] = ("channels_last",),
    image_size: PositiveInt = 224,
    width: PositiveInt = 512,
    rounds: PositiveInt = 7,
    minutes: PositiveFloat | None = None,
    threads: PositiveInt = 1,
    out: Path | None = None,
) -> None:
    """Time forward passes of merged VanillaNets, in each form, beside the authors' deploy form and networks of timm.

    The deploy form runs as published: PyTorch, contiguous. All contenders of a table run in turns, and a ratio is taken
    within the round. With one thread on a CPU, seconds are those that the process has had, so that other processes
    disturb little. Compiling takes a minute for each network, form and layout. A table is printed and written once its
    rounds are over; Ctrl-C ends them, and what was timed is kept.

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
        minutes: after which no further round of a table begins.
        threads: of the CPU.
        out: CSV file for the rows, and beside it, with the suffix .md, a page made from them. A table that is timed
            again takes the place of the one before.
    """
    known = [f"vanillanet{depth}" for depth in STAGES]
    if unknown := [name for name in networks if name not in known and not timm.is_model(name)]:
        raise UsageError(f"--networks {unknown[0]}: there are {', '.join(known)} and the networks of timm")
    if out is not None and out.suffix != ".csv":
        raise UsageError(f"--out {out}: give a name that ends in .csv; the page is written beside it")
    if "onnx" in forms:
        check_packages()
    torch.set_num_threads(threads)
    device = best_device()
    for batch, precision in product(batches, precisions):
        setting = Setting(batch, precision, image_size, width, threads, device)
        with torch.inference_mode():
            contenders = list(_contenders(setting, networks, forms, layouts))
            floors = _floors(setting)
            try:
                _time([*contenders, *floors], rounds, minutes, setting)
            finally:  # also after Ctrl-C
                if floors[0].seconds:
                    _keep(_records(setting, contenders, floors), out)


def _contenders(
    setting: Setting, networks: tuple[str, ...], forms: tuple[Form, ...], layouts: tuple[Layout, ...]
) -> Iterator[Contender]:
    wanted: list[tuple[str, Form, Layout]] = []
    for name in networks:
        if name.startswith("vanillanet"):
            wanted.append((f"official {name}", "eager", "contiguous"))
        for form, layout in product(forms, layouts):
            of_onnx = layout == layouts[0] and setting.precision == "float32" and setting.device.type == "cpu"
            if form != "onnx" or of_onnx:
                wanted.append((name, form, layout))
    for number, (name, form, layout) in enumerate(wanted, 1):
        words = f"{name}, {form}" + f", {layout}" * (form != "onnx")
        print(f"{number} of {len(wanted)}: {words}", file=sys.stderr)
        try:
            run = prepare(setting, name, form, layout)
            run()
        except Exception as error:  # compilers fail in ways of their own; the hours of all others are not lost
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            print(f"{words} is left out: {reason}", file=sys.stderr)
        else:
            yield Contender(name, form, "" if form == "onnx" else layout, run)


SIDE, BYTES = 1024, 256 << 20


def _floors(setting: Setting) -> list[Contender]:
    """A matrix product of SIDE³ multiply-adds in the precision, and a read of BYTES from memory."""
    matrix = torch.randn(SIDE, SIDE, device=setting.device).to(DTYPES[setting.precision])
    memory = torch.ones(BYTES // 4, device=setting.device)
    floors = [
        Contender("matrix product", "", "", lambda: matrix @ matrix),
        Contender("read", "", "", lambda: memory.sum()),
    ]
    for floor in floors:
        floor.run()
    return floors


def _time(contenders: list[Contender], rounds: int, minutes: float | None, setting: Setting) -> None:
    """Whole rounds; one that is interrupted does not count."""
    clock = clock_of(setting.device, setting.threads)
    end = time.monotonic() + (60 * minutes if minutes else float("inf"))
    for number in track(range(rounds), "rounds", console=Console(stderr=True)):
        if number and time.monotonic() > end:
            break
        seconds = []
        for contender in in_turn(contenders, number):
            start = clock()
            contender.run()
            seconds.append(clock() - start)
        for contender, taken in zip(in_turn(contenders, number), seconds, strict=True):
            contender.seconds.append(taken)


def _records(setting: Setting, contenders: list[Contender], floors: list[Contender]) -> list[Record]:
    macs_a_second, bytes_a_second = (
        work / min(floor.seconds) for work, floor in zip((SIDE**3, BYTES), floors, strict=True)
    )
    of_all = {
        "batch": str(setting.batch),
        "precision": setting.precision,
        "image_size": str(setting.image_size),
        "width": str(setting.width),
        "hardware": hardware(setting.device),
    }
    state = {
        "rounds": str(len(floors[0].seconds)),
        "gmacs_a_second": f"{macs_a_second / 1e9:.1f}",
        "gb_a_second": f"{bytes_a_second / 1e9:.2f}",
        "torch": torch.__version__,
        "commit": str(provenance()["commit"] or "")[:12],
        "day": time.strftime("%Y-%m-%d"),
    }
    times = {contender.network: contender.seconds for contender in contenders}
    costs = {name: _cost(setting, name) for name in times}
    records = []
    for contender in contenders:
        macs, size = costs[contender.network]
        seconds = contender.seconds
        reference = times.get(f"official {contender.network.removeprefix('official ')}")
        numbers = {
            "ms": 1000 * median(seconds),
            "fastest": 1000 * min(seconds),
            "slowest": 1000 * max(seconds),
            "floor_macs": 1000 * setting.batch * macs / macs_a_second,
            "floor_weights": 1000 * size / bytes_a_second,
        }
        records.append(
            of_all
            | {"network": contender.network, "form": contender.form, "layout": contender.layout}
            | {column: f"{value:.3f}" for column, value in numbers.items()}
            | {"of_official": ratio_and_spread(seconds, reference)[0] if reference else ""}
            | state
        )
    return records


def _cost(setting: Setting, name: str) -> tuple[int, int]:
    """Multiply-adds of an image, and bytes of the weights."""
    net = setting.network(name).float()
    size = (3, setting.image_size, setting.image_size)
    return count_macs(net, size), count_parameters(net) * DTYPES[setting.precision].itemsize


def _keep(records: list[Record], out: Path | None) -> None:
    table = Table(title=heading(records), title_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 3 else "right")
    for record in records:
        table.add_row(*cells(record))
    Console(width=140).print(table)
    if out is None:
        return
    new = set(map(setting_of, records))
    stored = read_records(out) if out.exists() else []
    kept = [record for record in stored if setting_of(record) not in new]
    write_records(out, [*kept, *records])
    with atomic(out.with_suffix(".md")) as file:
        file.write(page(read_records(out)))
    print(f"{len(records)} rows in {out}, and tables of all {len(kept) + len(records)} in {out.with_suffix('.md')}")
