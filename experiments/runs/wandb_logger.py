"""Weights & Biases, with its files in the run directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn


@dataclass
class WandbOptions:
    """What goes to Weights & Biases. Its environment variables go over what files say of it, and flags over them.

    Args:
        mode: ``offline`` keeps the run on disk for ``wandb sync``.
        project: to log to.
        entity: user or team.
        group: of runs, as for the seeds of one experiment.
        tags: of the run.
        name: of the run (default: that of its directory, after the experiment's).
        notes: on the run.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "fathom"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    name: str | None = None
    notes: str | None = None


def wandb_logger(run_directory: Path, options: WandbOptions) -> DispensableWandbLogger | None:
    """The logger of a run, ``None`` where it is disabled.

    Its id is that with which the directory was logged before, wherever it lay, and at first the directory's name.

    Raises:
        MisconfigurationException: for options that W&B would refuse, some of them only in ``wandb sync``.
    """
    if options.mode == "disabled":
        return None
    name = options.name or f"{run_directory.parent.name}/{run_directory.name}"
    _check(options, name)
    if find_spec("wandb") is None:
        raise MisconfigurationException(
            "Weights & Biases is not installed: pip install wandb, or take --wandb.mode disabled (metrics.csv has every"
            " row anyway)"
        )
    rank_zero_only(run_directory.mkdir)(parents=True, exist_ok=True)  # W&B writes elsewhere where it is missing
    return DispensableWandbLogger(
        name=name,
        notes=options.notes,
        mode=options.mode,
        version=_run_id(run_directory),
        save_dir=run_directory,
        offline=options.mode == "offline",
        project=options.project,
        entity=options.entity,
        group=options.group,
        tags=list(options.tags),
    )


def _check(options: WandbOptions, name: str) -> None:
    for option, text, most in (
        ("name", name, 128),
        ("project", options.project, 128),
        ("group", options.group or "", 128),
        *(("tags", tag, 64) for tag in options.tags),
    ):
        if len(text) > most:
            shorter = "--name or --wandb.name" if option == "name" else f"--wandb.{option}"
            raise MisconfigurationException(
                f"Weights & Biases takes a {option.removesuffix('s')} of up to {most} characters, and {text[:32]}… has"
                f" {len(text)}: give a shorter {shorter}"
            )
    if not all(options.tags):
        raise MisconfigurationException("a tag of --wandb.tags is empty, which Weights & Biases does not take")
    if not options.project or (odd := set(options.project) & set("/\\#?%:")):
        what = f"has {' '.join(sorted(odd))} in it" if options.project else "is empty"
        raise MisconfigurationException(f"--wandb.project {options.project!r} {what}: take letters, digits, - and _")


def _run_id(run_directory: Path) -> str:
    """W&B calls its folders ``offline-run-<date>_<time>-<id>`` and ``run-…``."""
    known = sorted(run_directory.glob("wandb/*run-*-*"))
    if known:
        return known[0].name.partition("run-")[2].partition("-")[2]
    return re.sub(r"[^\w-]", "-", run_directory.name)


class DispensableWandbLogger(WandbLogger):
    """Training goes on without it, with a warning, when its process is gone; ``metrics.csv`` has every row.

    Raises:
        MisconfigurationException: where the run can't be begun, such as online without a network or a key.
    """

    _gone = False

    @property
    def experiment(self) -> Any:
        mode = os.environ.get("WANDB_MODE")
        try:
            if self._experiment is None and not self._offline:
                _see_server()
            return super().experiment
        except Exception as error:  # each of its layers has a family of its own
            raise MisconfigurationException(
                f"Weights & Biases can't begin the run ({error}): see to the network and `wandb login`, or take"
                " --wandb.mode offline and `wandb sync` later"
            ) from error
        finally:  # Lightning sets it for an offline run, and the next run in this process is another
            os.environ.pop("WANDB_MODE", None)
            if mode is not None:
                os.environ["WANDB_MODE"] = mode

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._gone:
            return
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            self._gone = True
            _forget_process()
            rank_zero_warn(
                f"Weights & Biases is gone from step {step} on ({error}): training goes on, and metrics.csv has it all."
            )

    def finalize(self, status: str) -> None:
        if not self._gone:
            super().finalize(status)

    def end(self, error: type[BaseException] | None, *_: Any) -> None:
        """End the run, or the next one of this process would go on writing into it. ``error``: what ended it."""
        if self._experiment is not None and not self._gone:
            self._experiment.finish(exit_code=int(error is not None))


def _see_server() -> None:
    """Raises ``OSError`` where W&B's server gives no answer; W&B itself would try for minutes, and again at exit."""
    import wandb

    with suppress(HTTPError):  # an answer
        urlopen(wandb.setup().settings.base_url, timeout=20).close()


def _forget_process() -> None:
    """Else W&B speaks to it once more when Python exits, and prints a traceback."""
    import wandb

    with suppress(Exception):
        wandb.teardown()
