"""Figures 3 and 5 of Veit et al. 2016, of tables that ``measure`` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import REFERENCE, chance, house_style, integers, legend_of_all, looks, save, spoken
from experiments.unravel.records import Record
from experiments.unravel.source import Seen

Tables = Mapping[str, Sequence[Record]]
"""Records by network; the first network is the one in question, the others are there to compare with."""
Looks = Mapping[str, dict[str, Any]]
PAPER: dict[str, Any] = {"color": "0.15", "linewidth": 1}
"""How values of Veit et al. (2016) look, whose networks are a ResNet-110 and a VGG on CIFAR-10."""


@house_style()
def lesion_figure(tables: Tables, path: Path, seen: Seen = Seen()) -> None:  # noqa: B008
    """Error over the deleted block or layer, over how many are deleted at random, and over the start of a run.

    Bands are quartiles of the draws. A network whose batch normalisation was estimated anew too has curves of both. On
    CIFAR-10 the paper's values are there to compare with.
    """
    tables = _by_statistics(tables)
    shown = looks(tables)
    optional = {"random": _random, "run": _runs}
    panels = [_single]
    panels += [draw for kind, draw in optional.items() if any(_of_kind(records, kind) for records in tables.values())]
    figure = Figure(figsize=(3.2 * len(panels) + 0.6, 3.6))
    of_paper = {_single: _single_of_paper, _random: _random_of_paper} if seen.data in ("CIFAR10", "CIFAR-10") else {}
    for panel, axes in zip(panels, np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), strict=True):
        panel(axes, tables, shown)
        if panel in of_paper:
            of_paper[panel](axes)
        chance(axes, seen.classes)
        axes.set_ylim(0, 1)
        integers(axes.xaxis)
    figure.axes[0].set_ylabel("top-1 error")
    legend_of_all(figure, columns=max(len(panels), 2))
    save(figure, path, _note(tables, seen))


@house_style()
def reorder_figure(tables: Tables, path: Path, seen: Seen = Seen()) -> None:  # noqa: B008
    """Error over Kendall's τ: every draw, and the median of each tenth of τ (figure 5b)."""
    figure = Figure(figsize=(5.4, 3.6))
    axes = figure.subplots()
    for (network, records), look in zip(tables.items(), looks(tables).values(), strict=True):
        tau = np.array([float(record["tau"]) for record in records])
        errors = _errors(records)
        axes.plot(tau, errors, **look, linestyle="none", alpha=0.35, markeredgewidth=0)
        bins = np.round(tau, 1)
        centres = np.unique(bins)
        medians = [np.median(errors[bins == centre]) for centre in centres]
        axes.plot(centres, medians, color=look["color"], label=f"{spoken(network)}, median of each tenth of τ")
    chance(axes, seen.classes)
    axes.set(xlabel="Kendall's τ with the trained order of blocks", ylabel="top-1 error", ylim=(0, 1))
    axes.invert_xaxis()
    legend_of_all(figure, columns=2)
    save(figure, path, _note(tables, seen))


def _note(tables: Tables, seen: Seen) -> str:
    """Data, images, seeds and draws."""
    records = [record for table in tables.values() for record in table]
    parts = [seen.data] if seen.data else []
    images = {int(record["images"]) for record in records}
    parts.append(" or ".join(f"{number:,}" for number in sorted(images)) + " test images")
    random = [record for record in records if record.get("draw")]
    if random:
        draws = max(int(record["draw"]) for record in random) + 1
        seeds = sorted({record["seed"] for record in random})
        parts.append(f"{draws} random draws of each number, seed {', '.join(seeds)}")
    return "; ".join([*parts, "one training of each network"])


def _by_statistics(tables: Tables) -> Tables:
    """Each network with its own statistics, and then with those that were estimated anew after each lesion."""
    divided = {}
    for network, records in tables.items():
        images = {record.get("reestimated_on") or "" for record in records}
        for count in sorted(images, key=lambda images: int(images or 0)):
            name = f"{network}, BN estimated anew on {int(count):,} images" if count else network
            divided[name] = [record for record in records if (record.get("reestimated_on") or "") == count]
    return divided


def _single(axes: Axes, tables: Tables, shown: Looks) -> None:
    boundaries = set()
    for network, records in tables.items():
        lesions = _of_kind(records, "single")
        errors = _errors(lesions)
        axes.plot(range(1, len(errors) + 1), errors, **shown[network], label=spoken(network))
        boundaries |= {number for number, lesion in enumerate(lesions, start=1) if lesion["transition"] == "1"}
        for whole in _of_kind(records, "none"):
            axes.axhline(float(whole["error"]), color=shown[network]["color"], linestyle=":", linewidth=1)
    for number in boundaries:
        axes.axvline(number, color=REFERENCE, linewidth=0.8, alpha=0.6, zorder=0)
    if boundaries:
        axes.plot([], [], "-", color=REFERENCE, linewidth=0.8, marker="", label="a block that halves the image")
    axes.plot([], [], ":", color=REFERENCE, linewidth=1, marker="", label="nothing deleted")
    axes.set(title="one deleted", xlabel="deleted block or layer")


def _random(axes: Axes, tables: Tables, shown: Looks) -> None:
    for network, records in tables.items():
        lesions = _of_kind(records, "random")
        if not lesions:
            continue
        sizes = np.array([int(lesion["size"]) for lesion in lesions])
        positions = np.unique(sizes)
        low, median, high = np.transpose(
            [np.quantile(_errors(lesions)[sizes == size], (0.25, 0.5, 0.75)) for size in positions]
        )
        axes.plot(positions, median, **shown[network])
        axes.fill_between(positions, low, high, color=shown[network]["color"], alpha=0.2, linewidth=0)
    axes.set(title="several deleted at random", xlabel="deleted blocks or layers (median, quartiles)")


def _single_of_paper(axes: Axes) -> None:
    """Figure 3: the residual network stays at its error, but for its transitions; of the VGG no layer can be spared."""
    for error in (0.061, 0.9):
        axes.axhline(error, **PAPER, linestyle="-.", label="paper: VGG, ResNet-110")


def _random_of_paper(axes: Axes) -> None:
    """Figure 5a, as section 4.2 says it."""
    axes.plot(10, 0.2, **PAPER, marker="*", markersize=9, linestyle="none", label="paper: 10 of 54 blocks")


def _runs(axes: Axes, tables: Tables, shown: Looks) -> None:
    lengths = sorted({int(run["size"]) for records in tables.values() for run in _of_kind(records, "run")})
    for length, style in zip(lengths, cycle(("-", "--", ":", "-.")), strict=False):
        for network, records in tables.items():
            errors = _errors([run for run in _of_kind(records, "run") if int(run["size"]) == length])
            axes.plot(range(1, len(errors) + 1), errors, style, **shown[network] | {"marker": ""})
        axes.plot([], [], style, color=REFERENCE, marker="", label=f"{length} consecutive ones")
    axes.set(title="consecutive ones deleted", xlabel="first deleted block or layer")


def _of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def _errors(records: Sequence[Record]) -> np.ndarray:
    return np.array([float(record["error"]) for record in records])
