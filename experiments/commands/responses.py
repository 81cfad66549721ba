"""Measure how strongly each layer of a network responds."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.layer_responses import layer_responses
from experiments.unravel.path_figures import responses_figure
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import by_network, read_others, write_records
from experiments.unravel.source import open_subject

WANDB = WandbOptions()


def responses(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 500,
    beside: tuple[Path, ...] = (),
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Measure the standard deviation of each layer's response: responses.csv and responses.png.

    Responses are taken after batch normalisation and before ReLU or the addition (He et al. 2015, figure 7).

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module to evaluate on (default: the run's).
        images: number of test images, with the classes in proportion.
        beside: results of other networks (responses.csv, or its directory), drawn into the same figure.
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for initialisation.
        wandb: what is logged to Weights & Biases.
    """
    others = read_others(beside, "responses.csv", "std")
    subject = open_subject(network, data, weights, seed)
    found = layer_responses(subject.net, (pixels for pixels, _ in subject.batches(images)))
    if not found:
        raise MisconfigurationException(f"{network} has no convolutions")
    identity = {"network": subject.name, "fingerprint": subject.fingerprint(), "images": str(images)}
    records = [
        identity | {"layer": str(number), "name": name, "std": f"{deviation:.6g}"}
        for number, (name, deviation) in enumerate(found.items(), start=1)
    ]
    directory = out or subject.directory
    write_records(directory / "responses.csv", records)
    print(f"the {len(found)} layers of {subject.name} respond with a standard deviation of {mean(found.values()):.3f}")
    tables = by_network([records, *others])
    draw_and_publish(
        subject, "responses", records, directory, lambda path: responses_figure(tables, path, subject.seen), wandb
    )
