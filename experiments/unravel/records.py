"""Results as rows of a CSV file that is whole at every moment, so that a command that was ended can go on with it."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

Record = dict[str, str]


def read_records(path: Path) -> list[Record]:
    """The rows of a file that ``write_records`` wrote."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_records(path: Path, records: Sequence[Record]) -> None:
    """All of them, or the file stays as it was. Their columns are those of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "w", newline="") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def known_records(path: Path, identity: Record) -> list[Record]:
    """What ``path`` holds already; nothing where there is no file.

    Raises:
        MisconfigurationException: where a row has another value in a column of ``identity``.
    """
    records = read_records(path) if path.exists() else []
    for record in records:
        for column, value in identity.items():
            if record.get(column) != value:
                raise MisconfigurationException(
                    f"{path} has results of another {column} ({record.get(column)}, not {value}): give another --out,"
                    " or remove it"
                )
    return records
