"""Figure 6 of Veit et al. 2016 with the exact decomposition beside it, and figures of what else is unravelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.unravel.path_lengths import distribution, effective_range, survivors
from experiments.unravel.path_summary import PathSummary
from experiments.unravel.records import Record


def paths_figure(summary: PathSummary, stages: Mapping[str, PathSummary], title: str, path: Path) -> None:
    """Numbers of paths, gradients, contributions and the cumulative share, all over the path length."""
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    (counts, norms), (contributions, shares) = figure.subplots(2, 2)
    lengths = np.arange(len(summary.paths))

    blocks = len(lengths) - 1
    counts.bar(lengths, summary.paths, color="C7", label=f"all $2^{{{blocks}}}$")
    effective = effective_range(np.nan_to_num(summary.norm))
    for deleted in sorted({blocks // 5, 2 * blocks // 5} - {0}):  # the 10 and 20 of the paper's 54
        left = distribution(blocks, deleted)
        share = survivors(blocks, deleted, effective)
        label = f"{deleted} blocks deleted: {left.sum():.2g} left,\n{share:.2g} of the effective ones"
        counts.plot(lengths, left / left.sum(), ".-", linewidth=1, label=label)
    counts.set(title="paths", ylabel="share of those that are left")
    counts.set_ylim(top=1.6 * counts.get_ylim()[1])  # room for the legend

    norms.semilogy(lengths, summary.norm, ".-", color="C3", label="sum of all paths, exact")
    norms.semilogy(lengths, summary.single_norm, ".-", color="C0", label="a single path, mean of samples")
    spread = (summary.single_norm_p10, summary.single_norm_p90)
    norms.fill_between(lengths, *spread, color="C0", alpha=0.2, linewidth=0, label="10% to 90% of samples")
    norms.set(title="norm of the gradient")

    sums = summary.norm / np.nansum(summary.norm)
    contributions.plot(lengths, sums, ".-", color="C3", label="norm of the sum, exact")
    contributions.plot(lengths, summary.contribution, ".-", color="C0", label="C(n, k) · mean norm of a path")
    contributions.set(title="contribution", ylabel="share of all lengths", xlabel="path length in blocks")

    shares.plot(lengths, summary.cumulative_share, ".-", color="C3", label="network")
    for stage, within in stages.items():
        shares.plot(within.cumulative_share, linewidth=1, label=f"within stage {stage}")
    shares.axhline(1, color="black", linewidth=0.5)
    shares.set(title="of the gradient, by lengths up to", ylabel="share", xlabel="path length in blocks")

    for axes in figure.axes:
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=76)


def ensemble_figure(rule: float, averaged: Sequence[float], alone: Sequence[float], title: str, path: Path) -> None:
    """Top-1 error of the p_l rule, of averages over 1, 2, … subnetworks, and of each of them alone."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    members = range(1, len(averaged) + 1)
    axes.plot(members, averaged, color="C3", label="mean of the first k subnetworks")
    axes.plot(members, alone, ".", color="C7", markersize=3, label="each alone")
    axes.axhline(rule, color="C0", label="$p_l$ rule")
    axes.set(title=title, xlabel="subnetworks", ylabel="top-1 error")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def responses_figure(tables: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Standard deviations of layer responses in their order and by size, of several networks (He et al., figure 7)."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    ordered, by_size = figure.subplots(1, 2, sharey=True)
    for network, records in tables.items():
        deviations = np.array([float(record["std"]) for record in records])
        layers = range(1, len(deviations) + 1)
        ordered.plot(layers, deviations, linewidth=1, label=network)
        by_size.plot(layers, np.sort(deviations)[::-1], linewidth=1)
    ordered.set(xlabel="layer", ylabel="standard deviation of the response")
    by_size.set(xlabel="layer, by size")
    ordered.legend(fontsize="small")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def gradients_figure(tables: Mapping[str, Sequence[Record]], path: Path) -> None:
    """‖∂L/∂x‖ over the depth of several networks, initial and trained; that at the image is left out."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (network, records) in enumerate(tables.items()):
        for weights, style in (("initial", "--"), ("trained", "-")):
            _, *inner = [record for record in records if record["weights"] == weights]
            depths, norms = ([float(record[column]) for record in inner] for column in ("depth", "norm"))
            label = f"{network}, {weights}: {float(inner[0]['slope']):+.3f}"
            axes.semilogy(depths, norms, style, marker=".", color=f"C{number}", linewidth=1, label=label)
    axes.set(
        xlabel="layers before it", ylabel="‖∂L/∂x‖", title="gradient at the input of each block (slope of its log)"
    )
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def logit_gap_figure(tables: Mapping[str, Sequence[Record]], optimum: float, path: Path) -> None:
    """Distribution over images of the true logit minus the mean, and minus the largest, of the others."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, title in zip(panels, ("to_mean", "to_largest"), ("mean", "largest"), strict=True):
        for number, (network, (mean, *percentiles)) in enumerate(tables.items()):
            gaps = [float(record[column]) for record in percentiles]
            shares = [float(record["percentile"]) / 100 for record in percentiles]
            label = f"{network}: {float(mean[column]):.2f}"
            axes.plot(gaps, shares, color=f"C{number}", linewidth=1, label=label)
        if np.isfinite(optimum):
            axes.axvline(optimum, color="black", linestyle=":", linewidth=1, label=f"optimum: {optimum:.2f}")
        axes.set(xlabel=f"true logit − {title} of the others")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("share of images below")
    figure.savefig(path, dpi=90)
