"""Delete blocks of a trained network, and count its errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.figures import lesion_figure
from experiments.unravel.lesions import (
    Lesion,
    contiguous_lesions,
    lesioned,
    random_lesion,
    removable,
    single_lesions,
)
from experiments.unravel.measure import Row, measure
from experiments.unravel.publish import measure_and_draw
from experiments.unravel.records import read_others
from experiments.unravel.source import open_subject, taken_apart
from lit_models.interfaces import BATCH_NORMS, Link

WANDB = WandbOptions()


def lesion(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 1000,
    sizes: tuple[PositiveInt, ...] = (),
    draws: NonNegativeInt = 10,
    runs: tuple[PositiveInt, ...] = (2, 4),
    reestimate_batches: NonNegativeInt = 0,
    beside: tuple[Path, ...] = (),
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Delete blocks or layers of a trained network, and count its errors: lesion.csv and lesion.png.

    Every one alone, several at random, and runs of consecutive ones. An interrupted command continues where it
    stopped; one with more images, draws or sizes adds to what is there.

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module to evaluate on (default: the run's).
        images: number of test images, with the classes in proportion.
        sizes: numbers of blocks or layers deleted at random, such as [1,5,10] (default: ten sizes, evenly
            spaced up to half of all).
        draws: random draws per size.
        runs: lengths of runs of consecutive blocks or layers, such as [2].
        reestimate_batches: measure each lesion a second time, with batch normalisation estimated anew for it on this
            many batches of training images (without augmentation; --data.eval_batch_size of them in a batch).
        beside: results of other networks (lesion.csv, or its directory) to be drawn into the same figure, as [a,b].
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for draws and initialisation.
        wandb: what is logged to Weights & Biases.
    """
    others = read_others(beside, "lesion.csv", "kind")
    subject = open_subject(network, data, weights, seed)
    chain = taken_apart(subject)
    count = len(removable(chain))
    if not count:
        raise MisconfigurationException(f"{network} has no block or layer that could be deleted")
    rows = [_lesion_row(chain, "none", frozenset())]
    rows += [_lesion_row(chain, "single", lesion) for lesion in single_lesions(chain)]
    some = np.linspace(1, max(1, count // 2), 10).round().astype(int).tolist()
    for size in dict.fromkeys(sizes or some):
        drawn = [random_lesion(chain, size, seed, draw) for draw in range(draws)]
        rows += [_lesion_row(chain, "random", lesion, str(seed), str(draw)) for draw, lesion in enumerate(drawn)]
    for size in dict.fromkeys(runs):
        rows += [_lesion_row(chain, "run", lesion) for lesion in contiguous_lesions(chain, size)]
    estimated_anew: list[Row] = []
    if reestimate_batches:
        if not any(isinstance(module, BATCH_NORMS) for module in subject.net.modules()):
            raise MisconfigurationException(f"{network} has no batch normalisation: leave --reestimate_batches out")
        seen = min(reestimate_batches * subject.data.eval_batch_size, len(subject.data.split[0]))
        estimated_anew = [Row(row.variant, row.about | {"reestimated_on": str(seen)}) for row in rows]
        measure(subject, estimated_anew, images, (out or subject.directory) / "lesion.csv", reestimate_batches)
    measure_and_draw(subject, "lesion", rows, images, out, others, lesion_figure, wandb)

    for title, measured in (("", rows), (", batch normalisation estimated anew", estimated_anew)):
        if not measured:
            continue
        whole, *single = measured[: 1 + count]
        errors = [row.error for row in single]
        worst = single[int(np.argmax(errors))]
        print(
            f"top-1 error of {subject.name} on {whole.images} images{title}: {whole.error:.1%}; with one block or "
            f"layer of {count} deleted {np.median(errors):.1%} in the median, {worst.error:.1%} without "
            f"{worst.about['deleted']}"
        )


def _lesion_row(chain: Sequence[Link], kind: str, lesion: Lesion, seed: str = "", draw: str = "") -> Row:
    links = [chain[index] for index in sorted(lesion)]
    about = {
        "kind": kind,
        "size": str(len(lesion)),
        "seed": seed,
        "draw": draw,
        "transition": str(int(any(link.transition for link in links))),
        "deleted": " ".join(link.name for link in links),
        "reestimated_on": "",
    }
    return Row(lesioned(chain, lesion), about)
