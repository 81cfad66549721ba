"""Plot what several runs logged, side by side, from their metrics.csv."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.cli.messages import did_you_mean
from experiments.errors import UsageError

Curve = dict[int, float]
"""Epoch, from 0, to the mean of what was logged in it."""


class Run(NamedTuple):
    """What a run directory says of itself."""

    name: str
    curves: dict[str, Curve]
    summary: dict[str, Any]
    """Empty where the run has not ended."""


def compare(runs: list[Path], metric: str = "train/top1,val/top1", out: Path = Path("comparison")) -> None:
    """Plot metrics of several runs over the epochs, and print what the runs cost and where they came.

    Args:
        runs: run directories, or directories of experiments, whose newest training run is taken.
        metric: columns of metrics.csv, separated by commas; each gets a plot.
        out: path of the results without its ending; existing .png and .csv files are overwritten.

    Raises:
        FileNotFoundError: where a directory has no metrics.csv.
        UsageError: for a metric that none of the runs has.
    """
    metrics = [name.strip() for name in metric.split(",")]
    compared = [read_run(path, name) for path, name in named_apart([newest_run(path) for path in runs]).items()]
    for name in metrics:
        known = sorted({column for run in compared for column in run.curves})
        if name not in known:
            raise UsageError(f"no run has logged {name}{did_you_mean(name, known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(compared, metrics, out.with_name(f"{out.name}.csv"))
    plot(compared, metrics, out.with_name(f"{out.name}.png"))
    Console().print(overview(compared, metrics))
    print(f"{out}.png and {out}.csv have the curves")


def newest_run(path: Path) -> Path:
    """``path`` itself, or the newest run in it that has trained; evaluations are passed over."""
    if (path / "metrics.csv").is_file():
        return path
    trained = [file.parent for file in path.glob("*/metrics.csv") if has_trained(file)]
    if not trained:
        raise FileNotFoundError(
            f"{path} has no metrics.csv of a training run: give run directories, as runs/<experiment>/<run>"
        )
    return max(trained, key=lambda run: run.name)


def has_trained(metrics: Path) -> bool:
    """Whether a metrics.csv is of a fit, as its columns say."""
    with open(metrics, newline="") as file:
        return any(column.startswith("train/") for column in next(csv.reader(file), []))


def named_apart(paths: list[Path]) -> dict[Path, str]:
    """Name each run after its experiment, and several runs of one experiment after their directories too."""
    experiments = [path.resolve().parent.name for path in paths]
    return {
        path: experiment if experiments.count(experiment) == 1 else f"{experiment}/{path.resolve().name}"
        for path, experiment in zip(paths, experiments, strict=True)
    }


def read_run(path: Path, name: str) -> Run:
    """The metrics and the summary of a run directory."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open(path / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if value and row.get("epoch") and column not in ("epoch", "step"):
                    values[column][int(row["epoch"])].append(float(value))
    curves = {column: {epoch: fmean(logged) for epoch, logged in rows.items()} for column, rows in values.items()}
    summary = path / "summary.json"
    return Run(name, curves, json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {})


def write_csv(runs: list[Run], metrics: list[str], path: Path) -> None:
    """A row for each run, metric and epoch."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "metric", "epoch", "value"])
        for run in runs:
            for metric in metrics:
                for epoch, value in sorted(run.curves.get(metric, {}).items()):
                    writer.writerow([run.name, metric, epoch, f"{value:.6g}"])


def plot(runs: list[Run], metrics: list[str], path: Path) -> None:
    """A plot of each metric, side by side, with a line for each run that has it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(metrics), 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for i, run in enumerate(runs):
            if curve := run.curves.get(metric):
                epochs = sorted(curve)
                axes.plot(epochs, [curve[epoch] for epoch in epochs], f"C{i}.-", label=run.name, markersize=4)
        axes.set(title=metric, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=90)


def overview(runs: list[Run], metrics: list[str]) -> Table:
    """A row for each run: what it cost, and the last value of each metric with its epoch. 80 columns hold it."""
    table = Table("run", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("parameters", "multiply-\nadds", "seconds\nan epoch", *(f"{metric}\n(epoch)" for metric in metrics)):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        cost = (_engineering(run.summary.get(fact)) for fact in ("parameters", "macs"))
        values = (_last(run.curves.get(metric, {})) for metric in metrics)
        table.add_row(run.name, *cost, _seconds_an_epoch(run.summary), *values)
    table.columns[0].overflow = "fold"
    return table


def _engineering(number: float | None) -> str:
    """Such as ``23.5 M``."""
    if number is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


def _seconds_an_epoch(summary: dict[str, Any]) -> str:
    return f"{summary['seconds'] / summary['epochs']:.3g}" if summary.get("epochs") else "–"


def _last(curve: Curve) -> str:
    if not curve:
        return "–"
    epoch = max(curve)
    return f"{curve[epoch]:.4g} ({epoch})"
