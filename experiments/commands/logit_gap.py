"""Measure how far the true logit stands out, which label smoothing limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.logit_gap import LogitGaps, logit_gaps, optimal_gap
from experiments.unravel.path_figures import logit_gap_figure
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import by_network, read_others, write_records
from experiments.unravel.source import open_subject

WANDB = WandbOptions()


def logit_gap(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 10_000,
    smoothing: ClosedUnitInterval = 0.1,
    beside: tuple[Path, ...] = (),
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Measure the true logit minus the mean, and minus the largest, of the others: logit_gap.csv and logit_gap.png.

    The table has the mean over images, which is to be compared with log((K − 1)(1 − ε)/ε), and each percentile (He et
    al. 2019, figure 4b).

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module to evaluate on (default: the run's).
        images: number of test images, with the classes in proportion.
        smoothing: ε whose optimum is drawn, shared among the wrong classes (``smooth_over: others``).
        beside: results of other networks (logit_gap.csv, or its directory), drawn into the same figure.
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for initialisation.
        wandb: what is logged to Weights & Biases.
    """
    others = read_others(beside, "logit_gap.csv", "to_mean")
    subject = open_subject(network, data, weights, seed)
    with torch.inference_mode():
        batches = [logit_gaps(subject.net(pixels), targets) for pixels, targets in subject.batches(images)]
    gaps = LogitGaps(*(torch.cat(parts).cpu() for parts in zip(*batches, strict=True)))
    optimum = optimal_gap(subject.data.num_classes, smoothing)
    identity = {"network": subject.name, "fingerprint": subject.fingerprint(), "images": str(len(gaps.to_mean))}
    statistics = {"mean": [gap.mean().item() for gap in gaps]}
    percentiles = np.percentile(torch.stack(gaps), range(101), axis=1)
    statistics |= {str(percentile): values.tolist() for percentile, values in enumerate(percentiles)}
    records = [
        identity | {"percentile": name, "to_mean": f"{to_mean:.6g}", "to_largest": f"{to_largest:.6g}"}
        for name, (to_mean, to_largest) in statistics.items()
    ]
    directory = out or subject.directory
    write_records(directory / "logit_gap.csv", records)
    to_mean, to_largest = statistics["mean"]
    print(
        f"the true logit of {subject.name} exceeds the mean of the others by {to_mean:.2f} and the largest by"
        f" {to_largest:.2f}, in the mean over {len(gaps.to_mean)} images; the optimum of both at ε = {smoothing} and"
        f" {subject.data.num_classes} classes is {optimum:.2f}"
    )
    tables = by_network([records, *others])
    draw_and_publish(
        subject,
        "logit_gap",
        records,
        directory,
        lambda path: logit_gap_figure(tables, optimum, path, subject.seen),
        wandb,
    )
