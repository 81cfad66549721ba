"""Runs that lie on disk already: what they are, and which of them is the training that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.claims.key import recipe, recipe_of_run
from experiments.errors import UsageError
from experiments.runs.fits import settings_of, summary_of
from experiments.runs.lock import run_lock


@dataclass(frozen=True)
class Run:
    """A run directory of ``fathom fit``."""

    directory: Path
    settings: dict[str, Any]
    summary: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end, and its last weights are there."""
        return self.summary.get("status") == "finished" and self.weights.is_file()

    @property
    def weights(self) -> Path:
        """After the last epoch: no selection on any images."""
        return self.directory / "checkpoints" / "last.ckpt"

    @property
    def data(self) -> str:
        """Fingerprint of the training images."""
        return str(self.summary.get("data_fingerprint"))

    def is_of(self, recipe_wanted: str) -> bool:
        """Whether its settings mean the same outcome, with defaults of today for settings younger than the run."""
        if recipe(self.settings) == recipe_wanted:
            return True
        with suppress(Exception):  # settings that the code of today does not take are of another recipe
            return recipe_of_run(self.directory) == recipe_wanted
        return False

    @property
    def is_alive(self) -> bool:
        """Whether a process trains in it at this moment."""
        try:
            with run_lock(self.directory):
                return False
        except UsageError:
            return True


def runs_below(folders: Sequence[Path]) -> Iterator[Run]:
    """Every training below ``folders``."""
    for config in sorted(path for folder in folders for path in folder.rglob("config.yaml")):
        settings = settings_of(config.parent)
        if settings.get("model") and not _is_evaluation(settings):
            yield Run(config.parent, settings, summary_of(config.parent))


def tested(run: Run, folders: Sequence[Path]) -> dict[str, Any] | None:
    """Metrics of the run's last weights on the test images, if such an evaluation lies in the run or in ``folders``."""
    for config in sorted(path for folder in [run.directory, *folders] for path in folder.rglob("config.yaml")):
        settings = settings_of(config.parent)
        if _is_evaluation(settings) and Path(str(settings.get("ckpt_path"))).resolve() == run.weights.resolve():
            metrics = summary_of(config.parent).get("metrics", {})
            if "test/top1" in metrics:
                return dict(metrics)
    return None


def _is_evaluation(settings: dict[str, Any]) -> bool:
    return bool(settings.keys() & {"verbose", "return_predictions"})
