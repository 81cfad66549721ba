"""Weigh the paths of a residual network by their length."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from datamodules.pipeline.image_data import ImageData
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel.decomposition import gradients_by_length, unexplained, weigh
from experiments.unravel.path_figures import paths_figure
from experiments.unravel.path_gradients import (
    Fork,
    StackGradients,
    draw_path,
    is_residual,
    norm_per_image,
    path_gradient,
    residual_stack,
    stack_gradients,
)
from experiments.unravel.path_lengths import effective_range
from experiments.unravel.path_summary import PathSummary, summarise, summary_records
from experiments.unravel.publish import draw_and_publish
from experiments.unravel.records import Record, known_records, write_records
from experiments.unravel.source import open_subject, taken_apart
from lit_models.interfaces import Link

WANDB = WandbOptions()


def paths(
    network: str,
    data: ImageData | None = None,
    images: PositiveInt = 256,
    batch_size: PositiveInt = 32,
    samples: NonNegativeInt = 64,
    longest: NonNegativeInt | None = None,
    weights: Path | None = None,
    out: Path | None = None,
    seed: NonNegativeInt = 0,
    wandb: WandbOptions = WANDB,
) -> None:
    """Weigh the paths of a residual network by their length: paths.csv and paths.png.

    The gradient at the input of the first residual block is taken apart into the sums over all paths of each length,
    exactly (paths_exact.csv, for each stage too), and along single random paths (paths_sampled.csv). An interrupted
    command continues where it stopped; one with more images or samples adds to what is there.

    Args:
        network: a run directory, a checkpoint, pretrained:NAME, timm:NAME or torchvision:NAME.
        data: data module to evaluate on (default: the run's).
        images: number of test images; rounded up to whole batches.
        batch_size: images at once. Memory is that of a training step, and as many gradients as there are blocks.
        samples: single paths of each length, shared among the batches; the paper has 1,000.
        longest: leave longer paths out of the exact sums, to save time; their total is reported anyway.
        weights: weights file for timm:NAME or torchvision:NAME (default: random initialisation).
        out: directory of the results (default: ``unravel`` in the run directory).
        seed: random seed for samples and initialisation.
        wandb: what is logged to Weights & Biases.
    """
    subject = open_subject(network, data, weights, seed)
    chain = taken_apart(subject)
    start, end = residual_stack(chain)
    stack = chain[start:end]
    blocks = sum(map(is_residual, stack))
    directory = out or subject.directory
    exact_path, sampled_path = directory / "paths_exact.csv", directory / "paths_sampled.csv"
    identity = {"network": subject.name, "fingerprint": subject.fingerprint(), "batch_size": str(batch_size)}
    longest = blocks if longest is None else min(longest, blocks)
    cut = {"longest": str(longest)}
    exact, sampled = known_records(exact_path, identity | cut), known_records(sampled_path, identity)
    weighed = {record["batch"] for record in exact}
    drawn = {(record["seed"], record["length"], record["sample"]) for record in sampled}

    batches = ceil(min(images, len(subject.data.labels(test=True))) / batch_size)
    # Work is counted in backward passes of a branch.
    work = batches * blocks**2 // 2 + samples * blocks * (blocks + 1) // 2
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{batches} batches, {samples} samples of each length", total=work)
        for batch in range(batches):
            numbers = range(batch, samples, batches)
            missing = {
                length: [number for number in numbers if (str(seed), str(length), str(number)) not in drawn]
                for length in range(blocks + 1)
            }
            if any(missing.values()) or str(batch) not in weighed:
                # A data module may hand them out in smaller batches of its own.
                parts = subject.batches(batch_size, skip=batch * batch_size)
                gradients = stack_gradients(chain, *map(torch.cat, zip(*parts, strict=True)))
                about = {"batch": str(batch)}
            if str(batch) not in weighed:
                exact += [identity | cut | about | row for row in exact_rows(stack, gradients, longest)]
                write_records(exact_path, exact)
            progress.advance(task, blocks**2 // 2)
            if any(missing.values()):
                forks = [Fork(link, x) for link, x in zip(stack, gradients.inputs, strict=False)]
            for length, left in missing.items():
                if left:
                    rows = sampled_rows(forks, gradients.gradients[-1], length, left, seed)
                    sampled += [identity | about | row for row in rows]
                    write_records(sampled_path, sampled)
                progress.advance(task, length * len(numbers))

    summary = summarise([record for record in exact if record["stage"] == "all"], sampled)
    records = summary_records(summary, identity)
    write_records(directory / "paths.csv", records)
    for sentence in findings(summary):
        print(sentence)

    def draw(path: Path) -> None:
        seen = f"{subject.name}, {blocks} blocks; {subject.seen.data}, {images:,} test images"
        note = f"{seen}; {samples} samples of each length, seed {seed}"
        paths_figure(summary, _stage_summaries(exact), note, path)

    draw_and_publish(subject, "paths", records, directory, draw, wandb)


def exact_rows(stack: Sequence[Link], gradients: StackGradients, longest: int) -> list[Record]:
    """The decomposition of one batch, a row for each length: of the whole stack, and of each of several stages.

    A stage is taken apart between its own first and last block, with the whole gradient at its end.
    """
    numbers = sorted({link.stage for link in stack if is_residual(link)})
    parts = {"all": range(len(stack))}
    for number in numbers if len(numbers) > 1 else []:
        within = [index for index, link in enumerate(stack) if is_residual(link) and link.stage == number]
        parts[str(number)] = range(within[0], within[-1] + 1)
    rows = []
    for part, indices in parts.items():
        links = [stack[index] for index in indices]
        inputs = gradients.inputs[indices.start : indices.stop]
        terms = gradients_by_length(links, inputs, gradients.gradients[indices.stop], longest)
        whole = gradients.gradients[indices.start]
        weights = [column.tolist() for column in weigh(terms, whole)]
        left_out = unexplained(terms, whole).item()
        for length, (norm, cosine, share) in enumerate(zip(*weights, strict=True)):
            rows.append(
                {
                    "stage": part,
                    "blocks": str(sum(map(is_residual, links))),
                    "length": str(length),
                    "norm": f"{norm:.9g}",
                    "cosine": f"{cosine:.9g}",
                    "share": f"{share:.9g}",
                    "unexplained": f"{left_out:.3g}",
                }
            )
    return rows


def sampled_rows(
    forks: Sequence[Fork], gradient: Tensor, length: int, samples: Sequence[int], seed: int
) -> list[Record]:
    """The gradient norms along single paths of one length in one batch, a row for each.

    Args:
        forks: of the stack.
        gradient: at its end.
        length: of the paths.
        samples: their numbers, which with the seed and the length say which paths they are.
        seed: see ``draw_path``.
    """
    blocks = sum(fork.residual for fork in forks)
    norms = [
        norm_per_image(path_gradient(forks, gradient, draw_path(blocks, length, seed, sample))) for sample in samples
    ]
    return [
        {"seed": str(seed), "length": str(length), "sample": str(sample), "norm": f"{norm:.9g}"}
        for sample, norm in zip(samples, torch.stack(norms).tolist(), strict=True)
    ]


def findings(summary: PathSummary) -> list[str]:
    """The numbers that the paper gives of its network, for this one, and those of the exact sums.

    The norms of these do not add up to that of the gradient, their shares ⟨g_k, g⟩ / ‖g‖² do. Where lengths cancel,
    some shares are negative; these count as zero here, so 95% are of the lengths that make up the gradient.
    """
    blocks = len(summary.paths) - 1
    lengths = np.arange(blocks + 1)
    sentences = []
    for name, whole, values in (
        ("C(n, k) · mean norm of sampled paths", "their total", summary.contribution),
        ("norms of the exact sums", "the sum of their norms", summary.norm),
        ("exact shares ⟨g_k, g⟩/‖g‖²", "the gradient", summary.share.clip(0)),
    ):
        if np.isnan(values).any() or not values.any():
            continue
        effective = effective_range(values)
        share = summary.paths[effective.start : effective.stop].sum()
        sentences.append(
            f"by the {name}, lengths {effective.start} to {effective.stop - 1} of {blocks} hold 95% of {whole}, with"
            f" {share:.3%} of all paths; the mean length is {np.average(lengths, weights=values):.1f}"
        )
    return sentences


def _stage_summaries(exact: Sequence[Record]) -> dict[str, PathSummary]:
    stages = sorted({record["stage"] for record in exact} - {"all"}, key=int)
    return {stage: summarise([record for record in exact if record["stage"] == stage], []) for stage in stages}
