"""What is measured of a trained network, by name: each gives quantities with the interval over images or draws."""

from __future__ import annotations

import csv
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import linregress, spearmanr

from experiments.unravel.decomposition import decompose
from experiments.unravel.implicit_ensemble import implicit_ensemble
from experiments.unravel.input_gradients import input_gradients, slope
from experiments.unravel.layer_responses import layer_responses
from experiments.unravel.lesions import lesion_errors, random_lesion, single_lesions
from experiments.unravel.logit_gap import logit_gaps
from experiments.unravel.path_gradients import sampled_norms
from experiments.unravel.path_lengths import contributions
from experiments.unravel.reordering import kendall_tau, random_order, reordering_errors
from experiments.unravel.source import Subject, initial_network
from lit_models.evaluation import evaluation_mode

IMAGES = 2000
"""Test images on which variants of a network are evaluated, 200 of each class."""


class Measured(NamedTuple):
    """A quantity with the 95% interval over images or draws, where it has one."""

    value: float
    low: float
    high: float


def lesions(subject: Subject, run: Path) -> dict[str, Measured]:
    """Every link deleted once (Veit et al. 2016, figure 3), in points of top-1 error.

    Transitions are the links that change the shape of the image.
    """
    chain = subject.links
    singles = single_lesions(chain)
    whole, *errors = lesion_errors(subject.net, [frozenset(), *singles], subject.batches(IMAGES))
    at_transition = np.array([chain[next(iter(lesion))].transition for lesion in singles])
    rises = np.array(errors) - whole
    ordinary, transitions = rises[~at_transition], rises[at_transition]
    found = {
        "median_error": _share(float(np.median(np.array(errors)[~at_transition]))),
        "median_rise": _share(float(np.median(ordinary)), float(np.median(ordinary) + whole)),
    }
    if len(transitions):
        above = transitions.min() - np.quantile(ordinary, 0.9)
        found["transitions_above"] = _share(float(above), float(transitions.min() + whole))
        found["transitions_rise"] = _share(float(transitions.mean()), float(transitions.mean() + whole))
    return found


def many_lesions(subject: Subject, run: Path) -> dict[str, Measured]:
    """Several links deleted at random (figure 5a): the largest step of the median error, as a share of its range.

    It is 1 where the medians fall by more than a point on the way.
    """
    chain = subject.links
    sizes = [size for size in (1, 2, 3, 4, 5, 6, 8, 10, 12) if size <= len(single_lesions(chain))]
    drawn = [random_lesion(chain, size, 0, draw) for size in sizes for draw in range(10)]
    errors = lesion_errors(subject.net, [frozenset(), *drawn], subject.batches(IMAGES // 4))
    medians = [errors[0], *np.median(errors[1:].reshape(len(sizes), -1), axis=1)]
    # Sizes beyond 6 grow in steps of two, which are two steps of one.
    steps = [
        (after - before) / (1 if size <= 6 else 2)
        for (before, after), size in zip(pairwise(medians), sizes, strict=True)
    ]
    largest = max(steps) / (max(medians) - medians[0]) if min(steps) >= -0.01 else 1.0
    return {"largest_step": _exactly(largest)}


def stale_statistics(subject: Subject, run: Path) -> dict[str, Measured]:
    """Every link deleted once, with the network's statistics of batch normalisation and with those of the rest.

    ``recovered`` is the share of the mean rise in error that goes once they are estimated anew on 1,000 training
    images, for the whole network, too.
    """
    lesions = [frozenset[int](), *single_lesions(subject.links)]
    training_images = (images for images, _ in subject.batches(1000, test=False))
    stale = lesion_errors(subject.net, lesions, subject.batches(IMAGES))
    fresh = lesion_errors(subject.net, lesions, subject.batches(IMAGES), training_images)
    stale_rise, fresh_rise = (errors[1:] - errors[0] for errors in (stale, fresh))
    return {"recovered": _exactly(float(1 - fresh_rise.mean() / stale_rise.mean()))}


def exchanges(subject: Subject, run: Path) -> dict[str, Measured]:
    """Links exchanged within a stage (figure 5b): rank correlation of the error with Kendall's τ."""
    chain = subject.links
    orders = [random_order(chain, swaps, 0, draw) for swaps in range(1, 9) for draw in range(5)]
    errors = reordering_errors(subject.net, orders, subject.batches(IMAGES // 4))
    taus = np.array([kendall_tau(chain, order) for order in orders])
    return {
        "rank_correlation": _bootstrapped(
            lambda chosen: float(spearmanr(taus[chosen], errors[chosen]).statistic), len(taus)
        )
    }


def paths(subject: Subject, run: Path) -> dict[str, Measured]:
    """Gradients by path length (figure 6), over 128 test images and 20 paths of each length.

    ``r2`` is of the straight line through the logarithms of the mean norms, ``mean_length`` the mean of C(n, k) · norm
    and ``exact_mean_length`` of the exact shares of the gradient, both in units of the number of blocks.
    """
    images, targets = next(subject.batches(128))
    norms = sampled_norms(subject.net, images, targets, 20)
    means = norms.mean(1).numpy()
    blocks = len(means) - 1
    lengths = np.arange(blocks + 1)
    there = means > 0
    shares = decompose(subject.net, images[:64], targets[:64]).share.numpy()

    def mean_length(chosen: np.ndarray) -> float:
        return float(contributions(norms.numpy()[:, chosen].mean(1)) @ lengths / blocks)

    return {
        "r2": _exactly(float(linregress(lengths[there], np.log(means[there])).rvalue) ** 2),
        "mean_length": _bootstrapped(mean_length, norms.shape[1]),
        "exact_mean_length": _exactly(float(shares @ lengths / blocks)),
    }


def responses(subject: Subject, run: Path) -> dict[str, Measured]:
    """Standard deviation of the layers after batch normalisation (He et al. 2015, figure 7): the median over layers."""
    batches = (images for images, _ in subject.batches(1000))
    return {"median": _exactly(float(np.median(list(layer_responses(subject.net, batches).values()))))}


def gradients(subject: Subject, run: Path) -> dict[str, Measured]:
    """The factor by which ‖∂L/∂x‖ changes from one layer to the layer before it, before and after training.

    It is below 1 where gradients vanish towards the input; over 512 training images, with statistics of the batch.
    """
    nets = {"initial": initial_network(str(run), subject), "trained": subject.net}
    return {
        name: _exactly(exp(-slope(input_gradients(net, subject.batches(512, test=False)))))
        for name, net in nets.items()
    }


def logit_gap(subject: Subject, run: Path) -> dict[str, Measured]:
    """The true logit minus the mean of the others, in the mean over the test images (He et al. 2019, figure 4b)."""
    with torch.inference_mode():
        gaps = torch.cat([logit_gaps(subject.net(x), targets).to_mean for x, targets in subject.batches(10_000)])
    half = 1.96 * float(gaps.std()) / sqrt(len(gaps))
    return {"to_mean": Measured(float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half)}


def ensemble(subject: Subject, run: Path) -> dict[str, Measured]:
    """Error of the rule p_l minus that of the mean of 64 subnetworks, in points (Huang et al. 2016, section 3)."""
    rule, averaged, seen = 0, 0, 0
    for images, targets in subject.batches(10_000):
        hits = implicit_ensemble(subject.net, images, targets, members=64)
        rule, averaged, seen = rule + int(hits.rule), averaged + int(hits.averaged[-1]), seen + len(targets)
    return {"rule_minus_mean": _share((averaged - rule) / seen, 1 - rule / seen, seen)}


def unscaled(subject: Subject, run: Path) -> dict[str, Measured]:
    """Error with every p_l set to 1 minus the error of the rule, in points."""
    net: Any = subject.net
    blocks = list(net.residual_blocks().values())
    probs = [block.survival_prob.clone() for block in blocks]
    errors = []
    for scaled in (True, False):
        for block, prob in zip(blocks, probs, strict=True):
            block.survival_prob.copy_(prob if scaled else torch.ones_like(prob))
        errors.append(_error(subject, 10_000))
    for block, prob in zip(blocks, probs, strict=True):
        block.survival_prob.copy_(prob)
    return {"more_error": _share(errors[1] - errors[0], errors[1], 10_000)}


def curves(subject: Subject, run: Path) -> dict[str, Measured]:
    """Epoch means from ``metrics.csv``: the gradient of the first layer early on, of the first block late."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def mean(name: str, epochs: range) -> float:
        values = [float(row[name]) for row in rows if row.get(name) and int(row["epoch"]) in epochs]
        return float(np.mean(values)) if values else float("nan")

    last = max(int(row["epoch"]) for row in rows) + 1
    block = next((name for name in rows[0] if name.startswith("gradient_mean_abs/")), "")
    found = {"first_layer_early": _exactly(mean("gradient_norm/conv1", range(3)))}
    if block:
        found["first_block_late"] = _exactly(mean(block, range(last // 2, last)))
    return found


def _error(subject: Subject, images: int) -> float:
    wrong = seen = 0
    with torch.inference_mode(), evaluation_mode(subject.net):
        for pixels, targets in subject.batches(images):
            wrong, seen = wrong + int((subject.net(pixels).argmax(1) != targets).sum()), seen + len(targets)
    return wrong / seen


def _exactly(value: float) -> Measured:
    return Measured(value, value, value)


def _share(value: float, error: float | None = None, images: int = IMAGES) -> Measured:
    """``value``, which is or comes of the top-1 ``error`` on a number of images, in points."""
    p = min(max(value if error is None else error, 0.0), 1.0)
    half = 1.96 * sqrt(p * (1 - p) / images)
    return Measured(100 * value, 100 * (value - half), 100 * (value + half))


def _bootstrapped(statistic: Any, draws: int) -> Measured:
    """``statistic`` of all draws, and its interval over draws with replacement."""
    generator = np.random.default_rng(0)
    again = [statistic(generator.choice(draws, draws)) for _ in range(200)]
    low, high = np.nanquantile(again, (0.025, 0.975))
    return Measured(statistic(np.arange(draws)), float(low), float(high))
