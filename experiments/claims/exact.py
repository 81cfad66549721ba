"""The claims that need no training: counts, identities and equalities, computed anew in every check."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import StochasticDepth
from callbacks.stochastic_depth import draw_gates, survival_probs
from experiments.bench.timing import silence
from experiments.claims.inception_cost import IMAGE_SHAPE, WIDTHS, convolution_macs
from experiments.unravel.decomposition import gradients_by_length, unexplained
from experiments.unravel.path_gradients import residual_stack, stack_gradients
from experiments.unravel.path_lengths import distribution, survivors
from lit_models import VGG, CIFARResNet, GoogLeNet, ImageClassifier, ResNet, VanillaNet
from lit_models.cost import count_macs, count_parameters
from lit_models.errors import NetworkError
from lit_models.networks.inception import InceptionModule
from lit_models.surgery.links import links
from lit_models.surgery.reparameterize import logit_difference, merged_copy
from lit_models.tasks.losses import share_over_all

WIDE = {"depth": 13, "width": 768}
ADA_POOL = {**WIDE, "stem_stride": 3, "adaptive_pool": True}
VANILLANETS: list[tuple[dict[str, Any], int, int]] = [
    ({"depth": 5}, 15_523_304, 22_328_800),
    ({"depth": 6}, 32_509_416, 56_116_704),
    ({"depth": 7}, 32_797_672, 56_670_176),
    ({"depth": 8}, 37_096_424, 65_175_520),
    ({"depth": 9}, 41_395_176, 73_680_864),
    ({"depth": 10}, 45_693_928, 82_186_208),
    ({"depth": 11}, 49_992_680, 90_691_552),
    ({"depth": 12}, 54_291_432, 99_196_896),
    ({"depth": 13}, 58_590_184, 107_702_240),
    (WIDE, 127_796_200, 236_942_048),
    (ADA_POOL, 127_796_200, 236_942_048),
]
"""Variant, and parameters of the merged and of the trained form (Chen et al. 2023, table 4)."""
CIFAR_RESNETS = {20: 0.270, 32: 0.464, 44: 0.659, 56: 0.853, 110: 1.728, 1202: 19.42}
"""Depth, and millions of parameters (He et al. 2015, table 6)."""
RESNETS = {
    18: (11_689_512, 1.8),
    34: (21_797_672, 3.6),
    50: (25_557_032, 3.8),
    101: (44_549_160, 7.6),
    152: (60_192_808, 11.3),
}
"""Depth, parameters (torchvision's documentation), and billions of multiply-adds (He et al. 2015, table 1)."""
VGGS = {16: 138_357_544, 19: 143_667_240}
"""Depth, and parameters (torchvision's documentation)."""


class Exact(NamedTuple):
    """What was computed, and whether it is what the claim says."""

    held: bool
    ours: str
    """For the page; equal on every machine."""


@cache
def computed(function: str) -> Exact:
    """The result of a claim's function, ``exact:NAME``."""
    found: Callable[[], Exact] = globals()[function.removeprefix("exact:")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return found()


def inception_cost() -> Exact:
    """G1: 358 M is reached by counting the 3×3 convolution twice."""
    naive, bottleneck = (_module(form) for form in (False, True))
    macs = [count_macs(module, IMAGE_SHAPE) for module in (naive, bottleneck)]
    twice = next(cost for name, cost in convolution_macs(bottleneck) if name.startswith("3×3"))
    text = [f"{count / 1e6:.2f}" for count in (*macs, macs[1] + twice)]
    held = text == ["854.20", "271.35", "358.06"]
    return Exact(held, f"{text[0]} M / {text[1]} M; {text[2]} M with the 3×3 counted twice")


def inception_maps() -> Exact:
    """G2."""
    channels = [_module(form).out_channels for form in (False, True)]
    return Exact(channels == [672, 480], " / ".join(map(str, channels)))


def published_costs() -> Exact:
    """G15: the tables print multiply-adds to one decimal, and cut where they don't round: 3.66 is their 3.6."""
    right = []
    with torch.device("meta"):
        for depth, parameters in CIFAR_RESNETS.items():
            right.append(math.isclose(count_parameters(CIFARResNet(depth)) / 1e6, parameters, rel_tol=2e-3))
        for depth, (parameters, macs) in RESNETS.items():
            net = ResNet(depth, variant="original")
            right.append(count_parameters(net) == parameters)
            right.append(abs(count_macs(net, (3, 224, 224)) / 1e9 - macs) < 0.1)
        right.append(count_parameters(GoogLeNet(batch_norm=False, aux_heads=False)) == 6_998_552)
        for depth, parameters in VGGS.items():
            right.append(count_parameters(VGG(depth, batch_norm=False)) == parameters)
    return Exact(all(right), f"{sum(right)} of {len(right)} numbers equal")


def expected_depth() -> Exact:
    """S13: the expectation, and the mean of 10,000 drawn steps within 3.3 standard errors (99.9%)."""
    expected, drawn = [], []
    for last in (0.5, 0.2):
        probs = survival_probs(54, last)
        expected.append(sum(probs))
        counts = [sum(map(bool, draw_gates(probs, "batch", 0, step))) for step in range(10_000)]
        error = math.sqrt(sum(p * (1 - p) for p in probs) / len(counts))
        drawn.append(abs(sum(counts) / len(counts) - sum(probs)) < 3.3 * error)
    held = [round(value, 9) for value in expected] == [40.25, 32.0] and all(drawn)
    return Exact(held, f"{expected[0]:.2f} and {expected[1]:.1f}; 10,000 drawn steps agree")


def skipped_blocks_rest() -> Exact:
    """S15: twenty steps with momentum and weight decay; the parts of a branch move exactly when it runs."""
    net = CIFARResNet(20, width=4)
    module = ImageClassifier(net, 10, lr=0.1, weight_decay=0.1, no_bias_decay=False, schedule="constant")
    watcher = _Watcher()
    silence()
    images = TensorDataset(torch.randn(80, 3, 8, 8), torch.arange(80) % 10)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
        )
        trainer = L.Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            max_epochs=1,
            callbacks=[StochasticDepth(0.3, seed=0), watcher],
            **options,
        )
        trainer.fit(module, DataLoader(images, batch_size=4))
    rests = moves = wrong = 0
    for (before, after), gates in zip(pairwise(watcher.states), watcher.gates[1:], strict=True):
        for name, gate in zip(net.residual_blocks(), gates, strict=True):
            moved = [
                key not in before or not torch.equal(before[key], after[key]) for key in after if f"{name}." in key
            ]
            wrong += not all(moved) if gate else any(moved)
            rests, moves = rests + (not gate), moves + bool(gate)
    return Exact(not wrong and rests > 20 and moves > 20, f"{wrong} of {rests} skipped branches moved")


def path_lengths() -> Exact:
    """E6."""
    share = distribution(54)
    middle, short = 100 * share[19:36].sum(), 100 * share[5:18].sum()
    return Exact(
        (f"{middle:.1f}", f"{short:.4f}") == ("98.0", "0.4537"), f"{middle:.1f}% in 19 … 35; {short:.4f}% in 5 … 17"
    )


def surviving_paths() -> Exact:
    """E10."""
    left = [
        f"{100 * survivors(54, deleted, range(5, 18)):.{digits}g}"
        for deleted, digits in ((1, 3), (5, 3), (10, 3), (20, 2))
    ]
    return Exact(left == ["69.8", "15.3", "1.87", "0.012"], " / ".join(left) + "%")


def paths_add_up() -> Exact:
    """E14: of a ResNet with 9 blocks in float64."""
    net = _with_random_statistics(CIFARResNet(20, width=4)).double()
    chain = links(net)
    start, end = residual_stack(chain)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    inputs, gradients = stack_gradients(chain, images, torch.arange(4))
    terms = gradients_by_length(chain[start:end], inputs, gradients[-1])
    return Exact(unexplained(terms, gradients[0]).item() < 1e-12, "relative error below 1e-12, float64")


def resnet_d_cost() -> Exact:
    """B7a."""
    with torch.device("meta"):
        original, *variants = [count_macs(ResNet(50, variant=v), (3, 224, 224)) for v in ("original", "B", "C", "D")]
    text = [f"{macs / 1e9:.2f}" for macs in variants]
    held = text == ["4.09", "4.33", "4.33"] and max(variants) / original <= 1.15
    return Exact(
        held, f"{', '.join(text)} G, at most {max(variants) / original - 1:.1%} more than {original / 1e9:.2f} G"
    )


def optimal_logit_gap() -> Exact:
    """B10a: the loss of one image as a function of the gap, minimised."""

    def loss(gap: float) -> float:
        logits = torch.zeros(1, 10, dtype=torch.float64)
        logits[0, 0] = gap
        targets = torch.zeros(1, dtype=torch.int64)
        return F.cross_entropy(logits, targets, label_smoothing=share_over_all(0.1, 10, "others")).item()

    gap = float(minimize_scalar(loss, (2.0, 6.0), tol=1e-6).x)
    return Exact(abs(gap - math.log(9 * 0.9 / 0.1)) < 1e-4, f"{gap:.2f} for K = 10, ε = 0.1")


def merge_changes_nothing() -> Exact:
    """V8: eleven variants of six channels with random statistics, float64."""
    largest = max(logit_difference(net, merged_copy(net), images)[1] for net, images in _narrow_vanillanets())
    return Exact(largest < 1e-10, "logits within 1e-10, eleven variants, float64")


def merge_too_early() -> Exact:
    """V10: refused, and wrong where λ is forced."""
    net, images = next(_narrow_vanillanets())
    net.set_activation_lambda(0.9)
    refused = False
    try:
        merged_copy(net)
    except NetworkError:
        refused = True
    before = net(images)
    net.set_activation_lambda(1.0)
    merged = merged_copy(net)
    difference = ((merged(images) - before).abs().max() / before.abs().max()).item()
    return Exact(refused and difference > 1e-2, "refused at λ = 0.9; forced, logits differ by more than 1e-2")


def vanillanet_parameters() -> Exact:
    """V11."""
    right = []
    with torch.device("meta"):
        for variant, merged, trained in VANILLANETS:
            right.append(count_parameters(VanillaNet(1000, **variant)) == trained)
            right.append(count_parameters(VanillaNet(1000, **variant, reparameterized=True)) == merged)
    return Exact(all(right), f"{sum(right)} of {len(right)} numbers equal")


class _Watcher(L.Callback):
    """Gates, and the weights, statistics and momentum of branches after each step."""

    def __init__(self) -> None:
        self.gates: list[list[Any]] = []
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.gates.append([block.gate for block in pl_module.net.residual_blocks().values()])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        state = {
            f"{name}": value.clone()
            for name, value in pl_module.net.state_dict().items()
            if "survival_prob" not in name
        }
        moments = trainer.optimizers[0].state
        for name, parameter in pl_module.net.named_parameters():
            if "momentum_buffer" in moments.get(parameter, {}):
                state[f"{name} momentum"] = moments[parameter]["momentum_buffer"].clone()
        self.states.append(state)


def _module(bottleneck: bool) -> InceptionModule:
    with torch.device("meta"):
        return InceptionModule(IMAGE_SHAPE[0], WIDTHS, bottleneck, batch_norm=False)


def _narrow_vanillanets() -> Any:
    """Each variant with images for it."""
    for variant, *_ in VANILLANETS:
        net = VanillaNet(7, **{**variant, "width": 6})
        net.set_activation_lambda(1.0)
        yield _with_random_statistics(net).double(), torch.randn(2, 3, 96, 96, dtype=torch.float64)


def _with_random_statistics(net: nn.Module) -> Any:
    """``net`` in evaluation mode, with batch normalisation far from the identity it is born as."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    return net.eval().requires_grad_(False)
