"""Attention maps over the images they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from experiments.figures import house_style, save


class Look(NamedTuple):
    """What a network makes of an image."""

    network: str
    image: Tensor
    """uint8 (C, H, W), as the network gets it."""
    attention: Tensor
    """(H, W), at least 0."""
    prediction: str


@house_style()
def attention_figure(rows: Sequence[Sequence[Look]], path: Path, note: str = "") -> None:
    """A row for each image, a column for each network, after a column of the images themselves."""
    columns = 1 + len(rows[0])
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, looks in zip(grid, rows, strict=True):
        axes[0].imshow(_pixels(looks[0]), cmap="gray")
        for ax, look in zip(axes[1:], looks, strict=True):
            ax.imshow(_pixels(look), cmap="gray")
            strongest = float(look.attention.max())
            ax.imshow(look.attention.cpu(), cmap="inferno", alpha=0.5, vmin=0, vmax=strongest or 1)
            ax.set_title(look.prediction, fontsize="small")
    for ax, look in zip(grid[0][1:], rows[0], strict=True):
        ax.set_title(f"{look.network}\n{look.prediction}", fontsize="small")
    for ax in grid.flat:
        ax.set_axis_off()
    save(figure, path, note)


def _pixels(look: Look) -> Tensor:
    """(H, W, 3), or (H, W) of one channel."""
    image = look.image.permute(1, 2, 0)
    return image[..., 0] if image.shape[2] == 1 else image
