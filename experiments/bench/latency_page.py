"""The page of what ``fathom bench latency`` has timed: the ratio to the deploy form, the floors, and every form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from experiments.unravel.records import Record

TARGET = 0.6
"""Of the time of the authors' deploy form."""

EXPORTED = ("aoti", "onnx")
COLUMNS = ("network", "form", "layout", "ms", "fastest to slowest", "of official", "floor: multiply-adds", "weights")

INTRODUCTION = f"""# Latency

Written by `fathom bench latency --out latency.csv` from [its rows](latency.csv). All contenders of a table run in turns
in one process. `ms` is the median over the rounds, `of official` the median of their ratios to the authors' deploy
form in PyTorch, in the same precision. On a CPU with one thread, times are those that the process has had.

No form can be faster than its floors: its multiply-adds at the rate of a matrix product of 1024³ of them in the same
precision, and the bytes of its weights at the rate at which memory is read, both measured in the same rounds. The
goal is {TARGET} of the deploy form at most, in the fastest exported form.
"""


def page(records: Sequence[Record]) -> str:
    """All of it, in Markdown."""
    parts = [INTRODUCTION.rstrip(), _table(SUMMARY, _summary(records))]
    for _, of_setting in groupby(records, setting_of):
        rows = list(of_setting)
        parts += [f"## {heading(rows)}", _table(COLUMNS, map(cells, rows))]
    return "\n\n".join(parts) + "\n"


def heading(records: Sequence[Record]) -> str:
    """What the rows of a table have in common."""
    first = records[0]
    return (
        f"Batch {first['batch']}, {first['precision']}, {first['image_size']} px, width {first['width']},"
        f" {first['hardware']}, {first['rounds']} rounds; matrix products {float(first['gmacs_a_second']):.0f} G"
        f" multiply-adds a second, memory {float(first['gb_a_second']):.1f} GB a second"
    )


def cells(record: Record) -> list[str]:
    """Those of ``COLUMNS``."""
    numbers = {column: f"{float(record[column]):.1f}" for column in ("ms", "fastest", "slowest", *_FLOORS)}
    return [
        record["network"],
        record["form"],
        record["layout"],
        numbers["ms"],
        f"{numbers['fastest']} to {numbers['slowest']}",
        record["of_official"],
        *(numbers[floor] for floor in _FLOORS),
    ]


_FLOORS = {"floor_macs": "multiply-adds", "floor_weights": "weights"}
SUMMARY = ("", "batch", "precision", "official, ms", "fastest exported form", "of official", "floor", f"≤ {TARGET}")


def _summary(records: Sequence[Record]) -> Iterable[list[str]]:
    for _, of_setting in groupby(records, setting_of):
        rows = list(of_setting)
        for official in (row for row in rows if row["network"].startswith("official ")):
            name = official["network"].removeprefix("official ")
            exported = [row for row in rows if row["network"] == name and row["form"] in EXPORTED]
            if not exported:
                continue
            best = min(exported, key=lambda row: float(row["of_official"]))
            floor = max(_FLOORS, key=lambda column: float(best[column]))
            of_official = float(best[floor]) / float(official["ms"])
            yield [
                name,
                official["batch"],
                official["precision"],
                f"{float(official['ms']):.1f}",
                f"{best['form']} {best['layout']}".strip() + f": {float(best['ms']):.1f} ms",
                best["of_official"],
                f"{of_official:.3f} ({_FLOORS[floor]})",
                _verdict(float(best["of_official"]), of_official, float(best["ms"]) / float(best[floor])),
            ]


def _verdict(ratio: float, floor: float, times_floor: float) -> str:
    if ratio <= TARGET:
        return "yes"
    if floor > TARGET:
        return "can't be: the floor is above it"
    return f"no: it takes {times_floor:.1f} times its floor"


def setting_of(record: Record) -> tuple[str, ...]:
    """What is the same in all rows of a table, and in no other table."""
    return tuple(record[column] for column in ("batch", "precision", "image_size", "width", "hardware"))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
