"""A run for a notebook or a script: its configuration, metrics, summary, network and data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.pipeline.image_data import ImageData
from experiments.cli.data_of_run import data_of_run
from experiments.runs.fits import newest_fit, read_configuration, read_metrics, read_summary
from lit_models import load_checkpoint
from lit_models.checkpoints import checkpoint_file

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A run directory; what lies in it is read when it is first asked for."""

    directory: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, empty where the run has none."""
        return read_configuration(self.directory)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Status, metrics, cost, seed, versions; empty while the run has not begun to train."""
        return read_summary(self.directory)

    @cached_property
    def metrics(self) -> dict[str, Array]:
        """What was logged, by column, NaN where a row has no value; ``pandas.DataFrame(run.metrics)`` is its table."""
        return {name: np.array(values, dtype=float) for name, values in read_metrics(self.directory).items()}

    def curve(self, metric: str, over: str = "epoch") -> tuple[Array, Array]:
        """The values of a metric where it was logged, after those of ``over`` (``epoch`` or ``step``) beside them.

        Raises:
            KeyError: if the run has not logged it; the message lists what it has.
        """
        if metric not in self.metrics:
            raise KeyError(f"{self.directory} has logged no {metric}, but {', '.join(self.metrics)}")
        logged = ~np.isnan(self.metrics[metric])
        return self.metrics[over][logged], self.metrics[metric][logged]

    def model(self, name: str = "best") -> Any:
        """The LightningModule of a checkpoint, on the CPU and in evaluation mode; ``model().net`` is its network.

        Args:
            name: ``best`` (the last one where there is no best), ``last``, ``previous`` or ``merged``.

        Raises:
            FileNotFoundError: if the run has no such checkpoint.
            CheckpointError: see :func:`lit_models.load_checkpoint`.
        """
        if name == "best":
            return load_checkpoint(checkpoint_file(self.directory))
        folder = self.directory if name == "merged" else self.directory / "checkpoints"
        return load_checkpoint(folder / f"{name}.ckpt")

    def data(self) -> ImageData:
        """The data module it was trained on, ready to be iterated over.

        Raises:
            MisconfigurationException: if the configuration does not say which, or the data are not there.
        """
        data = data_of_run(self.directory / "config.yaml")
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        return data


def load_run(path: str | Path = "runs") -> Run:
    """A run directory, or the newest fit below a folder; evaluations are passed over.

    .. code-block:: python

        run = load_run("runs")
        model, data = run.model(), run.data()

    Args:
        path: a run directory or a folder of runs at any depth.

    Raises:
        FileNotFoundError: if there is no fit.
    """
    return Run(newest_fit(Path(path).expanduser()))
