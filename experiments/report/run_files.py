"""What a run directory holds, read with sentences for what can't be read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

from experiments.report.charts import Point
from experiments.runs.fits import epoch_means, read_configuration, read_metrics, read_summary, readable, setting

Metrics = dict[str, list[float | None]]


class RunFiles(NamedTuple):
    """One run, with the evaluations that lie in it."""

    name: str
    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    metrics: Metrics
    tests: list[dict[str, Any]]
    """``summary.json`` of each test of it, the oldest first."""

    def by_epoch(self, column: str) -> list[Point]:
        """The mean of what was logged in each epoch, from 1."""
        return [(epoch + 1, mean) for epoch, mean in sorted(epoch_means(self.metrics, column).items())]

    def by_step(self, column: str) -> list[Point]:
        """Each value that was logged; of several in a step the last."""
        pairs = zip(self.metrics.get("step", []), self.metrics.get(column, []), strict=False)
        return sorted({step: value for step, value in pairs if step is not None and value is not None}.items())

    def setting(self, name: str) -> Any:
        """Of the configuration, such as ``model.init_args.lr``; ``None`` where there is none."""
        return setting(self.config, name)


def read_run(path: Path, name: str) -> RunFiles:
    """The files of a run directory.

    Raises:
        UsageError: for a file that is damaged.
        OSError: for one that can't be read.
    """
    metrics = read_metrics(path)
    tests = [summary for summary in map(read_summary, sorted((path / "test").glob("*"))) if summary.get("metrics")]
    return RunFiles(name, path, read_configuration(path), read_summary(path), metrics, tests)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that an analysis wrote, none where there is no file."""
    if not path.is_file():
        return []
    with readable(path), open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
