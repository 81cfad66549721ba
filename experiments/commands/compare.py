"""Plot what several runs logged, side by side or as means over seeds, from their metrics.csv."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.cli.messages import did_you_mean
from experiments.errors import UsageError
from experiments.runs.fits import epoch_means, fits_below, newest_fit, read_configuration, read_metrics, read_summary
from experiments.runs.metric_names import metric_name
from experiments.runs.settings import settings

Curve = dict[int, float]
"""Epoch, from 0, to the mean of what was logged in it."""
STEPS = ("activation_lambda", "stochastic_depth/", "lr")
"""Beginnings of the names of what is set, and stays until it is set anew."""
LEARNT_FROM = ("seed", "model", "data", "trainer")
"""Beginnings of the names of settings that change what is learnt."""


class Run(NamedTuple):
    """What a run directory says of itself."""

    name: str
    curves: dict[str, Curve]
    summary: dict[str, Any]
    """Empty where the run has not ended."""
    config: dict[str, Any]


class Group(NamedTuple):
    """Runs that are one line of a figure and one row of the table: a single one, or the seeds of a setting."""

    name: str
    runs: list[Run]

    def curve(self, metric: str) -> dict[int, list[float]]:
        """Epoch to the values of all runs that have one."""
        values: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            for epoch, value in run.curves.get(metric, {}).items():
                values[epoch].append(value)
        return dict(sorted(values.items()))

    def last(self, metric: str) -> list[float]:
        """The last value of each run that has one."""
        return [curve[max(curve)] for run in self.runs if (curve := run.curves.get(metric))]


def compare(
    runs: list[Path],
    metric: str | None = None,
    group_by: str | None = None,
    over: str = "seed",
    out: Path = Path("comparison"),
) -> None:
    """Plot metrics of several runs over the epochs, and print what the runs cost and where they came.

    Args:
        runs: run directories, or folders of them, whose newest training run is taken; with --group_by all of them are.
        metric: columns of metrics.csv, separated by commas; each gets a plot (default: what the best checkpoints were
            chosen by, such as val/top1, and the same of the training).
        group_by: settings, separated by commas, such as model.lr: runs with equal values become one line and one row,
            the mean and standard deviation of their values.
        over: the setting in which the runs of a group differ; of several runs with one value the newest is taken.
        out: path of the results without its ending; existing .png, .svg, .pdf and .csv files are overwritten.

    Raises:
        FileNotFoundError: where a directory has no metrics.csv.
        UsageError: for a damaged file of a run, a metric that none of the runs has, and groups whose runs differ in
            other settings too.
    """
    if group_by is None and over != "seed":
        raise UsageError("--over says in what the runs of a group differ: give --group-by, too")
    if group_by is None:
        directories = named_apart([newest_fit(path) for path in runs])
        groups = [Group(name, [read_run(path, name)]) for path, name in directories.items()]
    else:
        found = dict.fromkeys(fit for path in runs for fit in fits_below(path))
        if not found:
            raise FileNotFoundError(f"no training run lies in {', '.join(map(str, runs))}")
        groups = grouped([read_run(path, str(path)) for path in found], group_by.split(","), over)
    known = sorted({column for group in groups for run in group.runs for column in run.curves})
    metrics = [name.strip() for name in metric.split(",")] if metric else monitored(groups, known)
    for name in metrics:
        if name not in known:
            raise UsageError(f"no run has logged {name}{did_you_mean(name, known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_csv(groups, metrics, out.with_name(f"{out.name}.csv"))
    plot(groups, metrics, out)
    Console().print(overview(groups, metrics))
    print(f"{out}.csv has the curves; {out}.png, .svg and .pdf show them")


def monitored(groups: list[Group], known: list[str]) -> list[str]:
    """What the best checkpoints of the runs were chosen by, after the same of the training, where it is ``known``."""
    chosen = [(run.config.get("best_checkpoint") or {}).get("monitor") for group in groups for run in group.runs]
    scores = dict.fromkeys(str(monitor or "val/top1").rpartition("/")[2] for monitor in chosen)
    found = [column for score in scores for column in (f"train/{score}", f"val/{score}") if column in known]
    return found or ["train/loss"]


def named_apart(paths: list[Path]) -> dict[Path, str]:
    """Name each run after its experiment, and several runs of one experiment after their directories too."""
    experiments = [path.resolve().parent.name for path in paths]
    return {
        path: experiment if experiments.count(experiment) == 1 else f"{experiment}/{path.resolve().name}"
        for path, experiment in zip(paths, experiments, strict=True)
    }


def read_run(path: Path, name: str) -> Run:
    """The metrics, the summary and the configuration of a run directory."""
    columns = read_metrics(path)
    curves = {name: curve for name in columns.keys() - {"epoch", "step"} if (curve := epoch_means(columns, name))}
    return Run(name, curves, read_summary(path), read_configuration(path))


def grouped(runs: list[Run], group_by: list[str], over: str) -> list[Group]:
    """The runs by the values of ``group_by``, in the order of these, one run for each value of ``over``.

    Raises:
        UsageError: if none has one of the settings, or runs of a group differ in another one.
    """
    flat = {run.name: settings(run.config) for run in runs}
    known = sorted({name for values in flat.values() for name in values})
    for name in (*group_by, over):
        if name not in known:
            raise UsageError(f"no run has the setting {name}{did_you_mean(name, known)}")
    groups: dict[tuple[Any, ...], dict[Any, Run]] = defaultdict(dict)
    for run in runs:  # oldest first
        values = tuple(flat[run.name].get(name) for name in group_by)
        group = groups[values]
        for other in list(group.values())[:1]:
            _check_alike(flat[other.name], flat[run.name], {*group_by, over}, _name(group_by, values), over)
        group[flat[run.name].get(over)] = run
    order = sorted(
        groups,
        key=lambda values: [(not _is_number(value), value if _is_number(value) else str(value)) for value in values],
    )
    return [Group(_name(group_by, values), list(groups[values].values())) for values in order]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _name(names: list[str], values: tuple[Any, ...]) -> str:
    return ", ".join(
        f"{name.rpartition('.')[2]} {str(value).removeprefix('lit_models.')}"
        for name, value in zip(names, values, strict=True)
    )


def _check_alike(one: dict[str, Any], other: dict[str, Any], free: set[str], group: str, over: str) -> None:
    """Raises ``UsageError`` where two runs of a group differ in a setting that changes what is learnt."""
    free = free | {"data.seed", "data.num_workers", "trainer.default_root_dir", "trainer.enable_progress_bar"}
    for name in sorted((one.keys() & other.keys()) - free):
        if name.startswith(LEARNT_FROM) and one[name] != other[name]:
            raise UsageError(
                f"the runs of {group} differ in {name} ({one[name]} and {other[name]}), not in {over} alone:"
                " add it to --group-by, or name fewer runs"
            )


def write_csv(groups: list[Group], metrics: list[str], path: Path) -> None:
    """A row for each run, metric and epoch; of a group of several, with their standard deviation and number."""
    several = any(len(group.runs) > 1 for group in groups)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "metric", "epoch", "value", *(["std", "runs"] if several else [])])
        for group in groups:
            for metric in metrics:
                for epoch, values in group.curve(metric).items():
                    spread = [f"{_std(values):.6g}", len(values)] if several else []
                    writer.writerow([group.name, metric, epoch, f"{fmean(values):.6g}", *spread])


def plot(groups: list[Group], metrics: list[str], path: Path) -> None:
    """A plot of each metric, side by side, with a line for each group that has it, and a band of one deviation."""
    from experiments.figures import house_style

    with house_style():
        _plot(groups, metrics, path)


def _plot(groups: list[Group], metrics: list[str], path: Path) -> None:
    from matplotlib.figure import Figure

    from experiments.figures import chance, integers, legend_of_all, looks, save, spoken

    figure = Figure(figsize=(3.6 * len(metrics) + 0.6, 3.6))
    shown = looks(group.name for group in groups)
    classes = {run.summary.get("classes") for group in groups for run in group.runs}
    guessed = classes.pop() if len(classes) == 1 else None
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        style = "steps-post" if metric.startswith(STEPS) else "default"
        for group in groups:
            if curve := group.curve(metric):
                means = [fmean(values) for values in curve.values()]
                axes.plot(list(curve), means, **shown[group.name], drawstyle=style, label=spoken(group.name))
                if len(group.runs) > 1:
                    spread = [(_std(values), mean) for values, mean in zip(curve.values(), means, strict=True)]
                    low, high = ([mean + sign * std for std, mean in spread] for sign in (-1, 1))
                    axes.fill_between(list(curve), low, high, color=shown[group.name]["color"], alpha=0.2, linewidth=0)
        if metric.endswith("top1"):
            chance(axes, guessed, accuracy=True)
        axes.set(xlabel="epoch", ylabel=metric_name(metric))
        integers(axes.xaxis)
    legend_of_all(figure)
    save(figure, path, note(groups))


def note(groups: list[Group]) -> str:
    """Data, images and seeds, as far as the summaries know."""
    facts = [run.summary for group in groups for run in group.runs]
    parts = [", ".join(sorted({str(summary["data"]) for summary in facts if "data" in summary}))]
    for name, images in (("train_images", "training"), ("val_images", "validation")):
        numbers = sorted({summary[name] for summary in facts if summary.get(name)})
        parts += [f"{' or '.join(f'{number:,}' for number in numbers)} {images} images"] if numbers else []
    seeds = sorted({str(summary["seed"]) for summary in facts if summary.get("seed") is not None})
    parts += [f"seed {', '.join(seeds)}"] if seeds else []
    if any(len(group.runs) > 1 for group in groups):
        parts.append("mean of the runs, band of one standard deviation")
    return "; ".join(filter(None, parts))


def overview(groups: list[Group], metrics: list[str]) -> Table:
    """A row for each run or group: what it cost, and the last value of each metric. 80 columns hold it.

    Of a single run with its epoch, of a group the mean ± standard deviation.
    """
    several = any(len(group.runs) > 1 for group in groups)
    table = Table("runs" if several else "run", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    facts = ["number", "seconds\nan epoch"] if several else ["parameters", "multiply-\nadds", "seconds\nan epoch"]
    for name in (*facts, *(metric if several else f"{metric}\n(epoch)" for metric in metrics)):
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        run = group.runs[0]
        if several:
            times = [time for run in group.runs if (time := _seconds_an_epoch(run.summary)) is not None]
            cost = [str(len(group.runs)), f"{fmean(times):.3g}" if times else "–"]
            values = [_mean_and_std(group.last(metric)) for metric in metrics]
        else:
            seconds = _seconds_an_epoch(run.summary)
            cost = [*(_engineering(run.summary.get(fact)) for fact in ("parameters", "macs"))]
            cost.append("–" if seconds is None else f"{seconds:.3g}")
            values = [_last(run.curves.get(metric, {})) for metric in metrics]
        table.add_row(group.name, *cost, *values)
    table.columns[0].overflow = "fold"
    return table


def _std(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else math.nan


def _mean_and_std(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _engineering(number: float | None) -> str:
    """Such as ``23.55 M``."""
    from matplotlib.ticker import EngFormatter

    return "–" if number is None else EngFormatter(places=2)(number).rstrip()


def _seconds_an_epoch(summary: dict[str, Any]) -> float | None:
    return summary["seconds"] / summary["epochs"] if summary.get("epochs") else None


def _last(curve: Curve) -> str:
    if not curve:
        return "–"
    epoch = max(curve)
    return f"{curve[epoch]:.4g} ({epoch})"
