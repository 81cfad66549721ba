"""Errors of many variants as a table on disk that is right at every moment, and goes on where it was left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.unravel.records import Record, known_records, write_records
from experiments.unravel.reestimation import reestimated
from experiments.unravel.source import Subject
from experiments.unravel.variants import EnterEdge, Variant, count_errors
from lit_models.interfaces import Link


@dataclass
class Row:
    """A variant, and its errors on the images seen so far."""

    variant: Variant
    about: dict[str, str]
    """What it is, by column."""
    images: int = 0
    errors: int = 0

    @property
    def error(self) -> float:
        """Top-1, in [0, 1]."""
        return self.errors / self.images


_COUNTS = ("images", "errors", "error")


def measure(
    subject: Subject, rows: Sequence[Row], images: int, path: Path, reestimate_batches: int = 0
) -> list[Record]:
    """Count errors of every row on the first ``images`` test images, and keep ``path``, a CSV file, up to date.

    What the file holds already of this network and these images is not counted again; rows of it that are not among
    ``rows`` stay. All of it is returned.

    Args:
        subject: the network and the images.
        rows: of the table; their counts are filled in.
        images: number of test images.
        path: of the table.
        reestimate_batches: number of batches of training images on which batch normalisation is estimated anew for
            each row.

    Raises:
        MisconfigurationException: where the file is of another network or other images.
    """
    chain = subject.links
    identity = {"network": subject.name, "fingerprint": subject.fingerprint()}
    kept = _resume(path, rows, identity)
    total = min(images, len(subject.data.labels(test=True)))
    columns = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with columns as progress:
        task = progress.add_task(
            f"{len(rows)} variants, {total} images",
            total=total * len(rows),
            completed=sum(min(row.images, total) for row in rows),
        )
        unfinished = [row.variant for row in rows if row.images < total]
        with _reestimated(subject, chain, unfinished, reestimate_batches, progress) as enter:
            while (start := min(row.images for row in rows)) < total:
                active = [row for row in rows if row.images == start]
                end = min([row.images for row in rows if row.images > start] + [total])
                for pixels, targets in subject.batches(end - start, skip=start):

                    def advance(by: int = len(targets)) -> None:
                        progress.advance(task, by)

                    errors = count_errors(chain, [row.variant for row in active], pixels, targets, advance, enter)
                    for row, count in zip(active, errors.tolist(), strict=True):
                        row.images += len(targets)
                        row.errors += count
                    write_records(path, [_record(identity, row) for row in rows] + kept)
    records = [_record(identity, row) for row in rows] + kept
    write_records(path, records)  # in this order, also where nothing was left to count
    return records


def _reestimated(
    subject: Subject, chain: Sequence[Link], variants: Sequence[Variant], batches: int, progress: Progress
) -> AbstractContextManager[EnterEdge]:
    """See :func:`reestimated`; nothing is estimated where no variant is left to count."""
    images = batches * subject.data.eval_batch_size if variants else 0
    samples = (pixels for pixels, _ in subject.batches(images, test=False)) if images else ()
    work = len(variants) * batches
    task = progress.add_task(f"batch normalisation, {batches} batches", total=work, visible=bool(images))
    return reestimated(subject.net, chain, variants, samples, lambda: progress.advance(task))


def _resume(path: Path, rows: Sequence[Row], identity: Record) -> list[Record]:
    """Fill in what is known of ``rows``, and return the records of others; what a file has no column for is empty."""
    known = {tuple(row.about.values()): row for row in rows}
    others = []
    for record in known_records(path, identity):
        about = tuple(record.get(column, "") for column in rows[0].about)
        if about in known:
            known[about].images, known[about].errors = int(record["images"]), int(record["errors"])
        else:
            others.append(record)
    return others


def _record(identity: Record, row: Row) -> Record:
    counts = (row.images, row.errors, f"{row.error:.6f}" if row.images else "")
    return identity | row.about | dict(zip(_COUNTS, map(str, counts), strict=True))
