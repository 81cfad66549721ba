"""Compare stochastic depth's rule at test time with real averages."""

from __future__ import annotations

from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import Progress

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.implicit_ensemble import implicit_ensemble, survival_probabilities
from experiments.unravel.path_figures import ensemble_figure
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import Record, known_records, write_records
from experiments.unravel.source import open_subject

WANDB = WandbOptions()


def ensemble(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 1000,
    members: PositiveInt = 64,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Compare the p_l rule of stochastic depth with averages over subnetworks: ensemble.csv and ensemble.png.

    Each subnetwork has each block with its survival probability, whatever the others, as StochasticDepth draws them.
    EffectivePathTraining drew a fixed number of blocks: for its networks these are not the subnetworks of training.

    An interrupted command continues where it stopped; one with more images adds to what is there.

    Args:
        network: a run directory or checkpoint of a network that was trained with StochasticDepth.
        data: data module to evaluate on (default: the run's).
        images: number of test images, with the classes in proportion.
        members: subnetworks in the largest average.
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for the subnetworks.
        wandb: what is logged to Weights & Biases.
    """
    subject = open_subject(network, data)
    survival_probabilities(subject.net)
    directory = out or subject.directory
    table = directory / "ensemble.csv"
    identity = {
        "network": subject.name,
        "fingerprint": subject.fingerprint(),
        "seed": str(seed),
        "members": str(members),
    }
    records = known_records(table, identity)
    seen = int(records[0]["images"]) if records else 0
    averaged = [int(record["errors"]) for record in records] or [0] * (members + 1)
    alone = [int(record["errors_alone"]) for record in records] or [0] * (members + 1)
    total = min(images, len(subject.data.labels(test=True)))
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{members} subnetworks, {total} images", total=total, completed=seen)
        for pixels, targets in subject.batches(max(total - seen, 0), skip=seen):
            hits = implicit_ensemble(subject.net, pixels, targets, members, seed)
            seen += len(targets)
            for errors, found in ((averaged, hits.averaged), (alone, hits.single)):
                for number, hit in enumerate([hits.rule.item(), *found.tolist()]):
                    errors[number] += len(targets) - hit
            records = [
                identity | _row(number, seen, *counts)
                for number, counts in enumerate(zip(averaged, alone, strict=True))
            ]
            write_records(table, records)
            progress.update(task, completed=seen)

    rule, *averages = (float(record["error"]) for record in records)
    singles = [float(record["error_alone"]) for record in records[1:]]
    print(
        f"top-1 error of {subject.name} on {seen} images: {rule:.2%} by the p_l rule, {averages[-1]:.2%} by the mean"
        f" over {members} of the subnetworks, {sum(singles) / members:.2%} by one of them on average"
    )

    def draw(path: Path) -> None:
        note = f"{subject.name}; {subject.seen.data}, {seen:,} test images; {members} subnetworks, seed {seed}"
        ensemble_figure(rule, averages, singles, note, path, subject.seen)

    draw_and_publish(subject, "ensemble", records, directory, draw, wandb)


def _row(subnetworks: int, images: int, errors: int, errors_alone: int) -> Record:
    """Of the average over the first ``subnetworks``; 0 stands for the p_l rule."""
    return {
        "subnetworks": str(subnetworks),
        "images": str(images),
        "errors": str(errors),
        "error": f"{errors / images:.6f}",
        "errors_alone": str(errors_alone),
        "error_alone": f"{errors_alone / images:.6f}",
    }
