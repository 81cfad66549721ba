"""Weights & Biases, with its files in the run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


@dataclass
class WandbOptions:
    """What goes to Weights & Biases.

    Args:
        mode: ``offline`` keeps the run on disk for ``wandb sync``.
        project: to log to.
        entity: user or team.
        group: of runs, as for the seeds of one experiment.
        tags: of the run.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "fathom"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


def wandb_logger(run_directory: Path, options: WandbOptions) -> WandbLogger | None:
    """The logger of a run, ``None`` where it is disabled. The directory's name becomes the run's id."""
    if options.mode == "disabled":
        return None
    rank_zero_only(run_directory.mkdir)(parents=True, exist_ok=True)  # W&B writes elsewhere where it is missing
    return WandbLogger(
        name=f"{run_directory.parent.name}/{run_directory.name}",
        version=run_directory.name,
        save_dir=run_directory,
        offline=options.mode == "offline",
        project=options.project,
        entity=options.entity,
        group=options.group,
        tags=list(options.tags),
    )
