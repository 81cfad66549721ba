"""What is stored: a row for each training, analysis and timing, in CSV files beside the claims of each paper."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.claims.sheet import Arm, Claim, Sheet, recipe_of
from experiments.unravel.records import Record, read_records, write_records

TRAININGS, ANALYSES, TIMINGS = "trainings.csv", "analyses.csv", "timings.csv"
IDENTITY = {
    TRAININGS: ("arm", "run"),
    ANALYSES: ("arm", "checkpoint", "analysis", "quantity"),
    TIMINGS: ("claim", "quantity", "hardware"),
}
"""Columns by which a row is one and the same: it is replaced, never counted twice."""


def store(path: Path, record: Record) -> None:
    """Put ``record`` in the place of the row with its identity, or at the end. Several processes may do so at once."""
    with _alone(path):
        records = read_records(path) if path.exists() else []
        identity = IDENTITY[path.name]
        positions = [n for n, row in enumerate(records) if all(row.get(name) == record[name] for name in identity)]
        if positions:
            records[positions[0]] = record
        else:
            records.append(record)
        columns = dict.fromkeys(name for row in records for name in row)
        write_records(path, [{name: row.get(name, "") for name in columns} for row in records])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process changes ``path``. The lock lies elsewhere, as the file itself is replaced."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    descriptor = os.open(
        Path(tempfile.gettempdir()) / f"fathom-{os.getuid()}-{name}.lock", os.O_RDWR | os.O_CREAT, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # not lockf, which does not tell the threads of a process apart
        yield
    finally:
        os.close(descriptor)


@dataclass
class Ledger:
    """The stored rows, read again whenever :meth:`read` is called."""

    sheet: Sheet
    rows: dict[str, list[Record]] = field(default_factory=dict)
    _recipes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """All files of the sheet."""
        for name in IDENTITY:
            paths = [self.sheet.root / paper / name for paper in self.sheet.titles]
            self.rows[name] = [row for path in paths if path.exists() for row in read_records(path)]

    def recipe(self, arm: Arm) -> str:
        """Of today, which takes a second to find out the first time."""
        if arm.id not in self._recipes:
            self._recipes[arm.id] = recipe_of(arm, self.sheet)
        return self._recipes[arm.id]

    def trainings(self, arm: Arm) -> list[Record]:
        """Those of the arm's recipe of today, on one set of images, one for each seed and in their order."""
        rows = [row for row in self.rows[TRAININGS] if row["arm"] == arm.id]
        if not rows:
            return []
        regime = [row for row in self.rows[TRAININGS] if self.sheet.arms[row["arm"]].regime == arm.regime]
        images = Counter(row["data"] for row in regime).most_common(1)[0][0]
        rows = [row for row in rows if row["recipe"] == self.recipe(arm) and row["data"] == images]
        if not rows:
            return []
        precision = Counter(row["precision"] for row in rows).most_common(1)[0][0]
        by_seed = {int(row["seed"]): row for row in rows if row["precision"] == precision}
        return [by_seed[seed] for seed in sorted(by_seed)]

    def measured(self, arm: Arm, analysis: str) -> dict[str, dict[str, Record]]:
        """Rows of an analysis by run and by quantity, of the trainings that count."""
        runs: dict[str, dict[str, Record]] = {row["run"]: {} for row in self.trainings(arm)}
        for row in self.rows[ANALYSES]:
            if row["arm"] == arm.id and row["analysis"] == analysis and row["run"] in runs:
                runs[row["run"]][row["quantity"]] = row
        return runs

    def timing(self, claim: Claim) -> Record:
        """The last row of a claim about time, empty where there is none."""
        return next((row for row in reversed(self.rows[TIMINGS]) if row["claim"] == claim.id), {})

    def values(self, claim: Claim, arm: Arm) -> list[float]:
        """The claim's quantity of each network of an arm, by seed."""
        if claim.analysis is None:
            return [float(row[claim.quantity]) for row in self.trainings(arm) if row.get(claim.quantity)]
        analysis, quantity = claim.analysis
        return [float(rows[quantity]["value"]) for rows in self.measured(arm, analysis).values() if quantity in rows]

    def spread_of(self, claim: Claim) -> Sequence[Sequence[float]]:
        """The claim's quantity by arm, over all arms of its regime."""
        known = {row["arm"] for row in self.rows[TRAININGS]}
        arms = [arm for arm in self.sheet.arms.values() if arm.regime == claim.regime and arm.id in known]
        return [self.values(claim, arm) for arm in arms]
