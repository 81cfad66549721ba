"""What is measured of a trained network, by name: each gives its quantities."""

from __future__ import annotations

import csv
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import linregress, spearmanr

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


def lesions(subject: Subject, run: Path) -> dict[str, float]:
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
        "median_error": 100 * float(np.median(np.array(errors)[~at_transition])),
        "median_rise": 100 * float(np.median(ordinary)),
    }
    if len(transitions):
        found["transitions_above"] = 100 * float(transitions.min() - np.quantile(ordinary, 0.9))
        found["transitions_rise"] = 100 * float(transitions.mean())
    return found


def many_lesions(subject: Subject, run: Path) -> dict[str, float]:
    """Several links deleted at random (figure 5a): the largest change of the median error by one more link.

    It is a share of the range of the medians, and a fall counts with its size as a rise does.
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
    return {"largest_change": float(max(map(abs, steps)) / (max(medians) - min(medians)))}


def stale_statistics(subject: Subject, run: Path) -> dict[str, float]:
    """Every link deleted once, with the network's statistics of batch normalisation and with those of the rest.

    ``recovered`` is the share of the mean rise in error that goes once they are estimated anew on 1,000 training
    images, for the whole network, too.
    """
    lesions = [frozenset[int](), *single_lesions(subject.links)]
    training_images = (images for images, _ in subject.batches(1000, test=False))
    stale = lesion_errors(subject.net, lesions, subject.batches(IMAGES))
    fresh = lesion_errors(subject.net, lesions, subject.batches(IMAGES), training_images)
    stale_rise, fresh_rise = (errors[1:] - errors[0] for errors in (stale, fresh))
    return {"recovered": float(1 - fresh_rise.mean() / stale_rise.mean())}


def exchanges(subject: Subject, run: Path) -> dict[str, float]:
    """Links exchanged within a stage (figure 5b): rank correlation of the error with Kendall's τ."""
    chain = subject.links
    orders = [random_order(chain, swaps, 0, draw) for swaps in range(1, 9) for draw in range(5)]
    errors = reordering_errors(subject.net, orders, subject.batches(IMAGES // 4))
    taus = np.array([kendall_tau(chain, order) for order in orders])
    return {"rank_correlation": float(spearmanr(taus, errors).statistic)}


def paths(subject: Subject, run: Path) -> dict[str, float]:
    """Gradients by path length (figure 6), over 128 test images and 20 paths of each length.

    ``r2`` is of the straight line through the logarithms of the mean norms, ``mean_length`` the mean of C(n, k) · norm
    in units of the number of blocks.
    """
    images, targets = next(subject.batches(128))
    means = sampled_norms(subject.net, images, targets, 20).mean(1).numpy()
    blocks = len(means) - 1
    lengths = np.arange(blocks + 1)
    there = means > 0
    return {
        "r2": float(linregress(lengths[there], np.log(means[there])).rvalue) ** 2,
        "mean_length": float(contributions(means) @ lengths / blocks),
    }


def responses(subject: Subject, run: Path) -> dict[str, float]:
    """Standard deviation of the layers after batch normalisation (He et al. 2015, figure 7): the median over layers."""
    batches = (images for images, _ in subject.batches(1000))
    return {"median": float(np.median(list(layer_responses(subject.net, batches).values())))}


def gradients(subject: Subject, run: Path) -> dict[str, float]:
    """The factor by which ‖∂L/∂x‖ changes from one layer to the layer before it, before and after training.

    It is below 1 where gradients vanish towards the input; over 512 training images, with statistics of the batch.
    """
    nets = {"initial": initial_network(str(run), subject), "trained": subject.net}
    return {name: exp(-slope(input_gradients(net, subject.batches(512, test=False)))) for name, net in nets.items()}


def logit_gap(subject: Subject, run: Path) -> dict[str, float]:
    """The true logit minus the mean of the others, in the mean over the test images (He et al. 2019, figure 4b)."""
    with torch.inference_mode():
        gaps = torch.cat([logit_gaps(subject.net(x), targets).to_mean for x, targets in subject.batches(10_000)])
    return {"to_mean": float(gaps.mean())}


def ensemble(subject: Subject, run: Path) -> dict[str, float]:
    """Error of the rule p_l minus that of the mean of 64 subnetworks, in points (Huang et al. 2016, section 3)."""
    rule, averaged, seen = 0, 0, 0
    for images, targets in subject.batches(10_000):
        hits = implicit_ensemble(subject.net, images, targets, members=64)
        rule, averaged, seen = rule + int(hits.rule), averaged + int(hits.averaged[-1]), seen + len(targets)
    return {"rule_minus_mean": 100 * (averaged - rule) / seen}


def unscaled(subject: Subject, run: Path) -> dict[str, float]:
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
    return {"more_error": 100 * (errors[1] - errors[0])}


def fit(subject: Subject, run: Path) -> dict[str, float]:
    """Error on training images as in a test, whole network and no augmentation, and how far the test error is above it.

    The training error that a run logs is, with stochastic depth, that of the subnetworks it has drawn.
    """
    train, test = (100 * _error(subject, 10_000, test=part) for part in (False, True))
    return {"train_error": train, "gap": test - train}


def curves(subject: Subject, run: Path) -> dict[str, float]:
    """Epoch means from ``metrics.csv``: the gradient of the first layer early on, of the first block late."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def mean(name: str, epochs: range) -> float:
        values = [float(row[name]) for row in rows if row.get(name) and int(row["epoch"]) in epochs]
        return float(np.mean(values)) if values else float("nan")

    last = max(int(row["epoch"]) for row in rows) + 1
    block = next((name for name in rows[0] if name.startswith("gradient_mean_abs/")), "")
    found = {"first_layer_early": mean("gradient_norm/conv1", range(3))}
    if block:
        found["first_block_late"] = mean(block, range(last // 2, last))
    return found


def _error(subject: Subject, images: int, test: bool = True) -> float:
    wrong = seen = 0
    with torch.inference_mode(), evaluation_mode(subject.net):
        for pixels, targets in subject.batches(images, test=test):
            wrong, seen = wrong + int((subject.net(pixels).argmax(1) != targets).sum()), seen + len(targets)
    return wrong / seen
