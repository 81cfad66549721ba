"""Results in Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.run_directory import new_run_directory
from experiments.unravel.records import Record
from experiments.wandb_logger import WandbOptions, wandb_logger


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
