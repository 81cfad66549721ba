"""Results as rows of a CSV file that is whole at every moment, so that a command that was ended can go on with it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_models.files import atomic

Record = dict[str, str]


def read_records(path: Path) -> list[Record]:
    """The rows of a file that ``write_records`` wrote."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """All of them, or the file stays as it was. Their columns are those of the first."""
    with atomic(path) as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)


def known_records(path: Path, identity: Record) -> list[Record]:
    """What ``path`` holds already; nothing where there is no file.

    Args:
        path: of the file.
        identity: columns in which all rows must agree with what is being measured; ``network`` and ``fingerprint`` are
            among them.

    Raises:
        MisconfigurationException: where one does not.
    """
    records = read_records(path) if path.exists() else []
    for record in records:
        different = [column for column, value in identity.items() if record.get(column) != value]
        if "fingerprint" in different:
            raise MisconfigurationException(
                f"{path} is of {record.get('network')} with other weights or images: give another --out, or remove it"
            )
        for column in different:
            raise MisconfigurationException(
                f"{path} is of another {column} ({record.get(column)}, not {identity[column]}): give another --out, or"
                " remove it"
            )
    return records


def read_others(paths: Sequence[Path], name: str, column: str) -> list[list[Record]]:
    """Records of other networks, from files or the directories in which they are called ``name``.

    Raises:
        MisconfigurationException: for a file without rows or without ``column``.
    """
    tables = []
    for path in paths:
        records = read_records(path / name if path.is_dir() else path)
        if not records or column not in records[0]:
            raise MisconfigurationException(f"{path} is no {name}")
        tables.append(records)
    return tables


def by_network(tables: Sequence[list[Record]]) -> dict[str, list[Record]]:
    """The tables by the names of their networks; networks of one name are told apart by their fingerprints."""
    count = Counter(records[0]["network"] for records in tables)
    named = {}
    for records in tables:
        network, fingerprint = records[0]["network"], records[0]["fingerprint"]
        named[network if count[network] == 1 else f"{network} {fingerprint}"] = records
    return named
