"""``metrics.csv``, which outlives the process that writes it."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from experiments.runs.directory import open_no_link
from lit_models.files import atomic


class MetricsCSV(CSVLogger):
    """Lightning's logger, which would delete the file of a run that is resumed.

    Here its rows stay, and a checkpoint holds how many there were when it was written: those that a killed process
    wrote after its last checkpoint are cut off, and written again by the resumed one.

    Args:
        run_directory: that the file lies in.
    """

    def __init__(self, run_directory: Path) -> None:
        super().__init__(run_directory, name="", version="")
        self._writer: _Writer | None = None

    @property
    def experiment(self) -> Any:
        if self._writer is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._writer = _Writer(self.log_dir)
        return self._writer or super().experiment  # Lightning's stand-in on other ranks

    def state_dict(self) -> dict[str, int]:
        """``rows`` that are safe on disk."""
        return {"rows": self._writer.sync()} if self._writer else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Cut off the rows after those."""
        if self._writer and state_dict:
            self._writer.truncate(state_dict["rows"])


class _Writer(ExperimentWriter):
    """Appends rows; where the columns change, the file is replaced as a whole."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self._rows = 0
        if self._path.is_file():
            try:
                self.metrics_keys, rows = self._read()
            except (csv.Error, UnicodeDecodeError, ValueError) as error:
                damaged = self._path.with_name("metrics.damaged.csv")
                self._path.replace(damaged)
                rank_zero_warn(f"{self._path} can't be read ({error}): it is now {damaged.name}, and a new one begins.")
                rows = []
            self._rows = len(rows)

    def save(self) -> None:
        if not self.metrics:
            return
        if self._record_new_keys() or not self._path.is_file():
            self._replace(self._read()[1] if self._path.is_file() else [])
        with open(self._path, "a", newline="", encoding="utf-8", opener=open_no_link) as file:
            csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        self._rows += len(self.metrics)
        self.metrics = []

    def sync(self) -> int:
        """Wait until the rows are on disk, and return their number."""
        self.save()
        if self._path.is_file():
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())
        return self._rows

    def truncate(self, rows: int) -> None:
        """Keep the first ``rows`` rows."""
        if self._rows < rows and self._path.is_file():  # else the checkpoint is another run's, and this is a new one
            rank_zero_warn(f"{self._path} has {self._rows} rows, where the checkpoint knows of {rows}.")
        if self._rows > rows:
            self._replace(self._read()[1][:rows])
            self._rows = rows

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with open(self._path, newline="", encoding="utf-8", opener=open_no_link) as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            if any(None in row or None in row.values() for row in rows[:-1]):
                raise ValueError("not all of its rows have the same columns")
            return list(reader.fieldnames or []), rows

    def _replace(self, rows: list[dict[str, str]]) -> None:
        with atomic(self._path) as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)

    def log_hparams(self, params: dict[str, Any]) -> None:
        """They are in ``config.yaml``; Lightning would write another file."""

    def _check_log_dir_exists(self) -> None:
        """Lightning would delete what is there."""
