"""Measure how much gradient arrives at each depth, before and after training."""

from __future__ import annotations

from math import exp
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.input_gradients import input_gradients, slope
from experiments.unravel.path_figures import gradients_figure
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import Record, by_network, read_others, write_records
from experiments.unravel.source import initial_network, open_subject, taken_apart

WANDB = WandbOptions()


def gradients(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 512,
    beside: tuple[Path, ...] = (),
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Measure ‖∂L/∂x‖ at the input of each block or layer: gradients.csv and gradients.png.

    Of the trained network and of its initial one, which is built anew from the run's configuration and seed. Images are
    those that are trained on, without augmentation; batch normalisation takes the statistics of their batches.

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module whose images are taken (default: the run's).
        images: number of training images, with the classes in proportion.
        beside: results of other networks (gradients.csv, or its directory), drawn into the same figure.
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for initialisation, where no run has its own.
        wandb: what is logged to Weights & Biases.
    """
    others = read_others(beside, "gradients.csv", "norm")
    subject = open_subject(network, data, weights, seed)
    taken_apart(subject)
    identity = {"network": subject.name, "fingerprint": subject.fingerprint(), "images": str(images)}
    records: list[Record] = []
    for weights_of, net in (("initial", initial_network(network, subject, seed)), ("trained", subject.net)):
        found = input_gradients(net, subject.batches(images, test=False))
        per_layer = slope(found)
        about = identity | {"weights": weights_of, "slope": f"{per_layer:.6g}"}
        records += [about | {"link": name, "depth": str(depth), "norm": f"{norm:.9g}"} for name, depth, norm in found]
        print(
            f"{weights_of} {subject.name}: towards the input ‖∂L/∂x‖ changes by a factor of {exp(-per_layer):.3f} a"
            f" layer (slope of its logarithm over depth {per_layer:+.4f})"
        )
    directory = out or subject.directory
    write_records(directory / "gradients.csv", records)
    tables = by_network([records, *others])
    draw_and_publish(
        subject, "gradients", records, directory, lambda path: gradients_figure(tables, path, subject.seen), wandb
    )
