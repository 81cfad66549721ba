"""Figure 6 of Veit et al. 2016 with the exact decomposition beside it, and figures of what else is unravelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import (
    REFERENCE,
    chance,
    house_style,
    integers,
    legend_above,
    legend_of_all,
    looks,
    save,
    spoken,
)
from experiments.unravel.path_lengths import distribution, effective_range, survivors
from experiments.unravel.path_summary import PathSummary
from experiments.unravel.records import Record
from experiments.unravel.source import Seen

_STYLES = ("-", "--", ":", "-.")
_PAPER = 54, (5, 17)
"""Blocks of the paper's network, and the lengths of 95% of its gradient."""


@house_style()
def paths_figure(summary: PathSummary, stages: Mapping[str, PathSummary], note: str, path: Path) -> None:
    """Numbers of paths, gradients, contributions and the cumulative share, all over the path length."""
    figure = Figure(figsize=(9.6, 7))
    (counts, norms), (contributions, shares) = figure.subplots(2, 2)
    lengths = np.arange(len(summary.paths))
    own = rcParams["axes.prop_cycle"].by_key()["color"][0]

    blocks = len(lengths) - 1
    counts.bar(lengths, summary.paths, color="0.8", label=f"all $2^{{{blocks}}}$ paths")
    weights = summary.norm if np.isnan(summary.contribution).any() else summary.contribution
    effective = effective_range(np.nan_to_num(weights))
    deletions = sorted({blocks // 5, 2 * blocks // 5} - {0})  # the 10 and 20 of the paper's 54
    for deleted, style in zip(deletions, _STYLES, strict=False):
        left = distribution(blocks, deleted)
        share = survivors(blocks, deleted, effective)
        label = f"{deleted} blocks deleted: {left.sum():.2g} of them left, {share:.2g} of the effective ones"
        counts.plot(lengths, left / left.sum(), style, color=own, marker="", label=label)
    counts.set(ylabel="share of the paths that are left")

    exact = {"color": own, "marker": "o", "label": "sum of all paths of a length, exact"}
    sampled = {"color": own, "marker": "", "linestyle": "--", "label": "single paths, mean of samples"}
    norms.semilogy(lengths, summary.norm, **exact)
    norms.semilogy(lengths, summary.single_norm, **sampled)
    spread = (summary.single_norm_p10, summary.single_norm_p90)
    norms.fill_between(lengths, *spread, color=own, alpha=0.2, linewidth=0, label="10% to 90% of samples")
    norms.set(ylabel="norm of the gradient")

    sums = summary.norm / np.nansum(summary.norm)
    contributions.plot(lengths, sums, **exact)
    contributions.plot(lengths, summary.contribution, **sampled | {"label": "C(n, k) · mean norm of a single path"})
    if blocks == _PAPER[0]:
        contributions.axvspan(*_PAPER[1], color="0.9", zorder=0, label="95% of it in the paper")
    contributions.set(ylabel="share of the norms of all lengths")

    shares.plot(lengths, summary.cumulative_share, **exact | {"label": "whole network"})
    for (stage, within), style in zip(stages.items(), cycle(_STYLES), strict=False):
        shares.plot(within.cumulative_share, style, color=REFERENCE, marker="", label=f"within stage {stage}")
    shares.axhline(1, color="black", linewidth=0.5)
    shares.set(ylabel="share of the gradient, up to a length")

    for axes in figure.axes:
        axes.set_xlabel("path length in blocks")
        integers(axes.xaxis)
        legend_above(axes, columns=2 if axes is shares else 1)
    save(figure, path, note)


@house_style()
def ensemble_figure(
    rule: float,
    averaged: Sequence[float],
    alone: Sequence[float],
    note: str,
    path: Path,
    seen: Seen = Seen(),  # noqa: B008
) -> None:
    """Top-1 error of the p_l rule, of averages over 1, 2, … subnetworks, and of each of them alone."""
    figure = Figure(figsize=(5.4, 3.8))
    axes = figure.subplots()
    members = range(1, len(averaged) + 1)
    axes.plot(members, averaged, marker="", label="mean of the first k subnetworks")
    axes.plot(members, alone, ".", color=REFERENCE, markersize=3, label="each alone")
    axes.axhline(rule, color="black", linestyle="--", label="$p_l$ rule")
    chance(axes, seen.classes)
    axes.set(xlabel="number k of subnetworks", ylabel="top-1 error")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    legend_of_all(figure, columns=2)
    save(figure, path, note)


@house_style()
def responses_figure(tables: Mapping[str, Sequence[Record]], path: Path, seen: Seen = Seen()) -> None:  # noqa: B008
    """Standard deviations of layer responses in their order and by size, of several networks (He et al., figure 7)."""
    figure = Figure(figsize=(9.6, 3.8))
    ordered, by_size = figure.subplots(1, 2, sharey=True)
    for (network, records), look in zip(tables.items(), looks(tables).values(), strict=True):
        deviations = np.array([float(record["std"]) for record in records])
        layers = range(1, len(deviations) + 1)
        ordered.plot(layers, deviations, **look, label=spoken(network))
        by_size.plot(layers, np.sort(deviations)[::-1], **look)
    ordered.set(xlabel="layer", ylabel="standard deviation of the response")
    by_size.set(xlabel="layer, by size")
    for axes in figure.axes:
        integers(axes.xaxis)
    legend_of_all(figure)
    save(figure, path, _note(tables, seen, "test images"))


@house_style()
def gradients_figure(tables: Mapping[str, Sequence[Record]], path: Path, seen: Seen = Seen()) -> None:  # noqa: B008
    """‖∂L/∂x‖ over the depth of several networks, initial and trained; that at the image is left out."""
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    for (network, records), look in zip(tables.items(), looks(tables).values(), strict=True):
        for weights, style in (("initial", "--"), ("trained", "-")):
            _, *inner = [record for record in records if record["weights"] == weights]
            depths, norms = ([float(record[column]) for record in inner] for column in ("depth", "norm"))
            label = f"{spoken(network)}, {weights}: {float(inner[0]['slope']):+.3f} a layer"
            axes.semilogy(depths, norms, style, **look, label=label)
    axes.set(xlabel="layers before the block or layer", ylabel="‖∂L/∂x‖ at its input")
    integers(axes.xaxis)
    legend_of_all(figure, columns=2)
    save(figure, path, _note(tables, seen, "training images") + "; numbers are slopes of the logarithm")


@house_style()
def logit_gap_figure(
    tables: Mapping[str, Sequence[Record]],
    optimum: float,
    path: Path,
    seen: Seen = Seen(),  # noqa: B008
) -> None:
    """Distribution over images of the true logit minus the mean, and minus the largest, of the others."""
    figure = Figure(figsize=(9.6, 4))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, other in zip(panels, ("to_mean", "to_largest"), ("mean", "largest"), strict=True):
        for (network, (mean, *percentiles)), look in zip(tables.items(), looks(tables).values(), strict=True):
            gaps = [float(record[column]) for record in percentiles]
            shares = [float(record["percentile"]) / 100 for record in percentiles]
            label = f"{spoken(network)}: {float(mean[column]):.2f} in the mean"
            axes.plot(gaps, shares, **look, markevery=10, label=label)
        _optimum(axes, optimum)
        axes.set(xlabel=f"true logit − {other} of the others")
        legend_above(axes)
    panels[0].set_ylabel("share of images below")
    save(figure, path, _note(tables, seen, "test images"))


def _optimum(axes: Axes, optimum: float) -> None:
    if np.isfinite(optimum):
        label = f"the paper's optimum: {optimum:.2f}"
        axes.axvline(optimum, color="black", linestyle=":", linewidth=1, label=label)


def _note(tables: Mapping[str, Sequence[Record]], seen: Seen, images: str) -> str:
    counts = sorted({int(records[0]["images"]) for records in tables.values()})
    return f"{f'{seen.data}; ' if seen.data else ''}{' or '.join(f'{count:,}' for count in counts)} {images}"
