"""What many batches and samples together say of the paths of each length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.unravel.path_lengths import Array, contributions, distribution
from experiments.unravel.records import Record


class PathSummary(NamedTuple):
    """Arrays over the path length k = 0 … n in blocks; means are over batches, NaN is what was not computed."""

    paths: Array
    """The share of this length in all 2^n paths."""
    single_norm: Array
    """Mean gradient norm of single paths."""
    single_norm_p10: Array
    """Their quantile at 10%."""
    single_norm_p90: Array
    """At 90%."""
    contribution: Array
    """C(n, k) · single_norm, as a share of all lengths."""
    norm: Array
    """‖g_k‖, the mean norm of the sum over all paths of this length."""
    cosine: Array
    """Mean cosine between g_k and the gradient g."""
    share: Array
    """Mean of ⟨g_k, g⟩ / ‖g‖²."""
    cumulative_share: Array
    """Of all lengths up to this one."""


def summarise(exact: Sequence[Record], sampled: Sequence[Record]) -> PathSummary:
    """From the rows of a network, or of one stage, in ``paths_exact.csv``, and those of ``paths_sampled.csv``."""
    blocks = int(exact[0]["blocks"])
    single = _by_length(sampled, "norm", blocks)
    single_norm = _means(single)
    share = _means(_by_length(exact, "share", blocks))
    return PathSummary(
        paths=distribution(blocks),
        single_norm=single_norm,
        single_norm_p10=_quantiles(single, 0.1),
        single_norm_p90=_quantiles(single, 0.9),
        contribution=contributions(single_norm),
        norm=_means(_by_length(exact, "norm", blocks)),
        cosine=_means(_by_length(exact, "cosine", blocks)),
        share=share,
        cumulative_share=np.cumsum(share),
    )


def summary_records(summary: PathSummary, identity: Record) -> list[Record]:
    """A row for each length."""
    return [
        identity
        | {"length": str(length)}
        | {column: f"{value:.6g}" for column, value in zip(summary._fields, values, strict=True)}
        for length, values in enumerate(zip(*summary, strict=True))
    ]


def _by_length(records: Sequence[Record], column: str, blocks: int) -> list[list[float]]:
    values = defaultdict(list)
    for record in records:
        values[int(record["length"])].append(float(record[column]))
    return [values[length] for length in range(blocks + 1)]


def _means(samples: list[list[float]]) -> Array:
    return np.array([np.mean(values) if values else np.nan for values in samples])


def _quantiles(samples: list[list[float]], q: float) -> Array:
    return np.array([np.quantile(values, q) if values else np.nan for values in samples])
