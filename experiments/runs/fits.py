"""What fits have written into their run directories, found and read without torch."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from experiments.errors import UsageError
from experiments.runs.safe_yaml import read_yaml


def is_fit(run: Path) -> bool:
    """Whether a run directory is of a fit that has trained, and not of an evaluation, as its metrics say."""
    metrics = run / "metrics.csv"
    if not metrics.is_file():
        return False
    with readable(metrics), open(metrics, newline="", encoding="utf-8") as file:
        return any(column.startswith("train/") for column in next(csv.reader(file), []))


def fits_below(folder: Path) -> list[Path]:
    """The fits in ``folder`` at any depth, which may be one itself; oldest first, as their names begin with a time.

    What lies in a fit is none, such as the rows that a logger of the user's has written into the run directory.
    """
    if is_fit(folder):
        return [folder]
    fits = {file.parent for file in folder.rglob("metrics.csv") if is_fit(file.parent)}
    return sorted((run for run in fits if fits.isdisjoint(run.parents)), key=lambda run: run.name)


def newest_fit(path: Path) -> Path:
    """``path`` itself if it is a run directory, otherwise the newest fit below it.

    Raises:
        FileNotFoundError: if there is none.
    """
    if (path / "metrics.csv").is_file():
        return path
    fits = fits_below(path)
    if not fits:
        raise FileNotFoundError(
            f"{path} has no metrics.csv of a training run: give a run directory, as runs/<experiment>/<run>, or a"
            " folder of them"
        )
    return fits[-1]


def read_metrics(run: Path) -> dict[str, list[float | None]]:
    """The columns of ``metrics.csv``, ``None`` where a row has no value."""
    columns: dict[str, list[float | None]] = defaultdict(list)
    with readable(run / "metrics.csv"), open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                columns[name].append(float(value) if value else None)
    return dict(columns)


def epoch_means(metrics: dict[str, list[float | None]], column: str) -> dict[int, float]:
    """Epoch, from 0, to the mean of what was logged of ``column`` in it; none of a column that was not logged."""
    values: dict[int, list[float]] = defaultdict(list)
    for epoch, value in zip(metrics.get("epoch", []), metrics.get(column, []), strict=False):
        if epoch is not None and value is not None:
            values[int(epoch)].append(value)
    return {epoch: fmean(logged) for epoch, logged in values.items()}


def read_configuration(run: Path) -> dict[str, Any]:
    """``config.yaml``, empty where the run has none."""
    return _read(run / "config.yaml", read_yaml)


def read_summary(run: Path) -> dict[str, Any]:
    """``summary.json``, empty where the run has none yet."""
    return _read(run / "summary.json", json.loads)


def settings_of(run: Path) -> dict[str, Any]:
    """``config.yaml`` of one run among many: empty where it can't be read, too."""
    with suppress(OSError, UsageError):
        return read_configuration(run)
    return {}


def summary_of(run: Path) -> dict[str, Any]:
    """``summary.json`` of one run among many: empty where it can't be read, too."""
    with suppress(OSError, UsageError):
        return read_summary(run)
    return {}


def setting(settings: Any, name: str) -> Any:
    """The value of a setting in a configuration, such as ``model.init_args.lr``; ``None`` where it has none."""
    for part in name.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    with readable(path):
        content = parse(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
        return content


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one sentence that names it."""
    try:
        yield
    except (csv.Error, ValueError, TypeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} can't be read ({reason}): restore it, or leave this run out") from error
