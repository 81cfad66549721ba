"""Weights & Biases, with its files in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


def wandb_logger(
    run_directory: Path,
    mode: Literal["offline", "online", "disabled"] = "offline",
    project: str = "fathom",
    entity: str | None = None,
    group: str | None = None,
    tags: tuple[str, ...] = (),
) -> WandbLogger | None:
    """The logger of a run, ``None`` where it is disabled.

    Args:
        run_directory: whose name becomes the run's id.
        mode: ``offline`` keeps the run on disk for ``wandb sync``.
        project: to log to.
        entity: user or team.
        group: of runs, as for the seeds of one experiment.
        tags: of the run.
    """
    if mode == "disabled":
        return None
    rank_zero_only(run_directory.mkdir)(parents=True, exist_ok=True)  # W&B writes elsewhere where it is missing
    return WandbLogger(
        name=f"{run_directory.parent.name}/{run_directory.name}",
        version=run_directory.name,
        save_dir=run_directory,
        offline=mode == "offline",
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
    )
