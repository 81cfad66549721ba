"""Exchange blocks of a trained network, and count its errors."""

from __future__ import annotations

from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.figures import reorder_figure
from experiments.unravel.measure import Row
from experiments.unravel.publish import measure_and_draw
from experiments.unravel.records import read_others
from experiments.unravel.reordering import kendall_tau, random_order, reordered
from experiments.unravel.source import open_subject, taken_apart

WANDB = WandbOptions()


def reorder(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 1000,
    swaps: tuple[PositiveInt, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    draws: NonNegativeInt = 10,
    beside: tuple[Path, ...] = (),
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Exchange building blocks of a trained network, and count its errors: reorder.csv and reorder.png.

    Blocks change places within their stage; those that change the shape stay. An interrupted command continues where
    it stopped; one with more images, draws or swaps adds to what is there.

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module to evaluate on (default: the run's).
        images: number of test images, with the classes in proportion.
        swaps: numbers of exchanges of two random blocks, one after the other, such as [1,5,10].
        draws: random draws per number of exchanges.
        beside: results of other networks (reorder.csv, or its directory) to be drawn into the same figure, as [a,b].
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for draws and initialisation.
        wandb: what is logged to Weights & Biases.
    """
    others = read_others(beside, "reorder.csv", "tau")
    subject = open_subject(network, data, weights, seed)
    chain = taken_apart(subject)
    rows = []
    for count, draw in [(0, 0), *((count, draw) for count in dict.fromkeys(swaps) for draw in range(draws))]:
        order = random_order(chain, count, seed, draw)
        about = {
            "swaps": str(count),
            "seed": str(seed),
            "draw": str(draw),
            "tau": f"{kendall_tau(chain, order):.4f}",
            "order": " ".join(map(str, order)),
        }
        rows.append(Row(reordered(order), about))
    measure_and_draw(subject, "reorder", rows, images, out, others, reorder_figure, wandb)

    trained, *drawn = rows
    furthest = min(drawn, key=lambda row: float(row.about["tau"]), default=trained)
    print(
        f"top-1 error of {subject.name} on {trained.images} images: {trained.error:.1%}; "
        f"{furthest.error:.1%} in the order furthest from the trained one, at τ = {furthest.about['tau']}"
    )
