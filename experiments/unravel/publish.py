"""Results: measured, drawn, and in Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.runs.directory import new_run_directory
from experiments.runs.wandb_logger import WandbOptions, wandb_logger
from experiments.unravel.figures import Tables
from experiments.unravel.measure import Row, measure
from experiments.unravel.records import Record, by_network
from experiments.unravel.source import Subject


def publish(name: str, records: Sequence[Record], figure: Path, options: WandbOptions) -> None:
    """A run of its own with the table and the figure; its files lie beside the figure.

    Args:
        name: of the run, of the command and the network.
        records: rows of the table.
        figure: a PNG.
        options: what goes to Weights & Biases.
    """
    logger = wandb_logger(new_run_directory(figure.parent / "wandb", name.replace(":", "-")), options)
    if logger is None:
        return
    logger.log_table("results", columns=list(records[0]), data=[list(record.values()) for record in records])
    logger.log_image("figure", [str(figure)])
    logger.experiment.finish()


def measure_and_draw(
    subject: Subject,
    command: str,
    rows: Sequence[Row],
    images: int,
    out: Path | None,
    others: list[list[Record]],
    draw: Callable[[Tables, Path], Any],
    wandb: WandbOptions,
) -> None:
    """Measure ``rows`` into ``{command}.csv``, with ``others`` drawn beside them; see :func:`draw_and_publish`."""
    directory = out or subject.directory
    records = measure(subject, rows, images, directory / f"{command}.csv")
    tables = by_network([records, *others])
    draw_and_publish(subject, command, records, directory, lambda path: draw(tables, path), wandb)


def draw_and_publish(
    subject: Subject,
    command: str,
    records: Sequence[Record],
    directory: Path,
    draw: Callable[[Path], Any],
    wandb: WandbOptions,
) -> None:
    """Draw ``{command}.png`` beside ``{command}.csv``, publish both, and print where they are."""
    figure = directory / f"{command}.png"
    draw(figure)
    publish(f"{command}-{subject.name}", records, figure, wandb)
    print(f"{directory / command}.csv and {figure} have the results")
