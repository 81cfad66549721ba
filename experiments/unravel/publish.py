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
from experiments.unravel.source import Seen, Subject


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
    draw: Callable[[Tables, Path, Seen], Any],
    wandb: WandbOptions,
) -> None:
    """Measure ``rows`` into ``{command}.csv``, with ``others`` drawn beside them; see :func:`draw_and_publish`."""
    directory = out or subject.directory
    records = measure(subject, rows, images, directory / f"{command}.csv")
    tables = by_network([records, *others])
    draw_and_publish(subject, command, records, directory, lambda path: draw(tables, path, subject.seen), wandb)


def draw_and_publish(
    subject: Subject,
    command: str,
    records: Sequence[Record],
    directory: Path,
    draw: Callable[[Path], Any],
    wandb: WandbOptions,
) -> None:
    """Draw ``{command}.png``, ``.svg`` and ``.pdf`` beside ``{command}.csv``, publish and print where they are."""
    draw(directory / command)
    publish(f"{command}-{subject.name}", records, directory / f"{command}.png", wandb)
    print(f"{directory / command}.csv and .png, .svg, .pdf have the results")
