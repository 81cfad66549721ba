"""Figures 3 and 5 of Veit et al. 2016, of tables that ``measure`` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.unravel.records import Record

Tables = Mapping[str, Sequence[Record]]
"""Records by network; the first network is the one in question, the others are there to compare with."""


def lesion_figure(tables: Tables, path: Path) -> None:
    """Error over the deleted link, over the number of links deleted at random, and over the start of a run.

    A network whose batch normalisation was estimated anew too has curves of both.
    """
    tables = _by_statistics(tables)
    optional = {"random": _random, "run": _runs}
    panels = [_single]
    panels += [draw for kind, draw in optional.items() if any(_of_kind(records, kind) for records in tables.values())]
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    for panel, axes in zip(panels, np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), strict=True):
        panel(axes, tables)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("top-1 error")
    figure.savefig(path, dpi=110)


def reorder_figure(tables: Tables, path: Path) -> None:
    """Error over Kendall's τ: every draw, and the median of each tenth of τ (figure 5b)."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for (network, records), color in zip(tables.items(), cycle(_COLORS), strict=False):
        tau = np.array([float(record["tau"]) for record in records])
        errors = _errors(records)
        axes.plot(tau, errors, ".", color=color, alpha=0.35, markersize=5)
        bins = np.round(tau, 1)
        centres = np.unique(bins)
        axes.plot(centres, [np.median(errors[bins == centre]) for centre in centres], color=color, label=network)
    axes.set(xlabel="Kendall's τ with the trained order", ylabel="top-1 error", ylim=(0, 1))
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


_COLORS = [f"C{number}" for number in range(10)]


def _by_statistics(tables: Tables) -> Tables:
    """Each network with its own statistics, and then with those that were estimated anew after each lesion."""
    divided = {}
    for network, records in tables.items():
        images = {record.get("reestimated_on") or "" for record in records}
        for count in sorted(images, key=lambda images: int(images or 0)):
            name = f"{network}, BN estimated anew on {int(count):,} images" if count else network
            divided[name] = [record for record in records if (record.get("reestimated_on") or "") == count]
    return divided


def _single(axes: Axes, tables: Tables) -> None:
    for (network, records), color in zip(tables.items(), cycle(_COLORS), strict=False):
        lesions = _of_kind(records, "single")
        errors = _errors(lesions)
        axes.plot(range(1, len(errors) + 1), errors, ".-", color=color, linewidth=1, label=network)
        transitions = [number for number, lesion in enumerate(lesions) if lesion["transition"] == "1"]
        axes.plot(np.array(transitions) + 1, errors[transitions], "o", color=color, fillstyle="none")
        for whole in _of_kind(records, "none"):
            axes.axhline(float(whole["error"]), color=color, linestyle=":", linewidth=1)
    axes.set(title="one deleted (dotted: none; circles: transitions)", xlabel="deleted link")
    axes.legend()


def _random(axes: Axes, tables: Tables) -> None:
    for number, (records, color) in enumerate(zip(tables.values(), cycle(_COLORS), strict=False)):
        lesions = _of_kind(records, "random")
        sizes = np.array([int(lesion["size"]) for lesion in lesions])
        positions = np.unique(sizes)
        samples = [_errors(lesions)[sizes == size] for size in positions]
        if number == 0:
            axes.boxplot(samples, positions=positions, manage_ticks=False, widths=0.5, medianprops={"color": color})
        else:
            axes.plot(positions, [np.median(sample) for sample in samples], ".-", color=color, linewidth=1)
    axes.set(title="several deleted at random", xlabel="deleted links")


def _runs(axes: Axes, tables: Tables) -> None:
    for (network, records), style in zip(tables.items(), cycle(("-", "--", ":", "-.")), strict=False):
        runs = _of_kind(records, "run")
        sizes = np.array([int(run["size"]) for run in runs])
        for size, color in zip(np.unique(sizes), cycle(_COLORS), strict=False):
            errors = _errors(runs)[sizes == size]
            axes.plot(
                range(1, len(errors) + 1), errors, style, color=color, linewidth=1, label=f"runs of {size}, {network}"
            )
    axes.set(title="consecutive links deleted", xlabel="first of them")
    axes.legend(fontsize="small")


def _of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def _errors(records: Sequence[Record]) -> np.ndarray:
    return np.array([float(record["error"]) for record in records])
