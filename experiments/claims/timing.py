"""The claims about time: interleaved rounds, the median of what each gives, and the least and the greatest.

The range of independent rounds is an interval for their median: of 98.4% with seven of them, of 93.8% with five.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from statistics import median
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import nn

from callbacks.run.run_summary import hardware, provenance
from experiments.bench.stochastic_depth import Variant, time_variants
from experiments.bench.timing import clock_of, in_turn
from experiments.claims.inception_cost import IMAGE_SHAPE, WIDTHS
from experiments.claims.rows import TIMINGS, Ledger, store
from experiments.claims.sheet import Claim
from experiments.device import best_device
from lit_models import CIFARGoogLeNet, CIFARResNet, ResNet, VanillaNet
from lit_models.cost import count_macs
from lit_models.networks.inception import InceptionModule

ROUNDS = 7


class Timed(NamedTuple):
    """What a claim is graded by, from each round."""

    rounds: Sequence[float]
    words: str = ""
    """What else the page shows."""


def time_claim(claim: Claim, ledger: Ledger) -> None:
    """Measure a time claim and store its row, with hardware and threads."""
    device = best_device()
    timed: Timed = globals()[claim.function.removeprefix("timing:")](device)
    store(
        ledger.sheet.root / claim.paper / TIMINGS,
        {
            "claim": claim.id,
            "quantity": claim.function.removeprefix("timing:"),
            "value": f"{median(timed.rounds):.4f}",
            "low": f"{min(timed.rounds):.4f}",
            "high": f"{max(timed.rounds):.4f}",
            "rounds": str(len(timed.rounds)),
            "words": timed.words,
            "hardware": hardware(device),
            "torch": torch.__version__,
            "commit": str(provenance()["commit"] or "")[:12],
            "day": time.strftime("%Y-%m-%d"),
        },
    )


def stochastic_depth_time(device: torch.device) -> Timed:
    """S9: the time of a step relative to constant depth, less the share of the work that was executed."""
    constant, by_batch, *_ = _stochastic_depth()
    ratios = _ratios(by_batch.seconds, constant.seconds)
    excess = [ratio - work for ratio, work in zip(ratios, by_batch.executed, strict=True)]
    return Timed(excess, f"{median(ratios):.2f} of the time for {median(by_batch.executed):.2f} of the work")


def mask_time(device: torch.device) -> Timed:
    """S12: of torchvision's and timm's masks the faster, relative to constant depth."""
    constant, _, _, *masks = _stochastic_depth()
    ratios = [_ratios(mask.seconds, constant.seconds) for mask in masks]
    return Timed(min(ratios, key=median))


def precision_time(device: torch.device) -> Timed:
    """B6: half precision over float32, a training step of ResNet-20 with 128 images."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    steps = [_training_step(CIFARResNet(20), device, dtype) for dtype in (half, None)]
    return Timed(_ratios(*_in_rounds(steps, device)))


def bottleneck_time(device: torch.device) -> Timed:
    """G3t: bottleneck over naive modules, a training step of the small networks with 128 images."""
    nets = [
        CIFARGoogLeNet(width=12, modules_per_stage=(1, 2, 1), bottleneck=bottleneck, aux_heads=False)
        for bottleneck in (True, False)
    ]
    return Timed(_ratios(*_in_rounds([_training_step(net, device, None) for net in nets], device)))


def lecture_module_time(device: torch.device) -> Timed:
    """G3w: bottleneck over naive, the forward pass of the lecture's own module with 8 images."""
    nets = [InceptionModule(IMAGE_SHAPE[0], WIDTHS, bottleneck, batch_norm=False) for bottleneck in (True, False)]
    return Timed(_ratios(*_in_rounds([_forward(net, (8, *IMAGE_SHAPE), device) for net in nets], device)))


def depth_and_latency(device: torch.device) -> Timed:
    """V7: rank correlation of the latency of one image with depth, less that with multiply-adds.

    At the full width: narrow VanillaNets and ResNets have the same order by depth and by multiply-adds.
    """
    vanilla = {depth: VanillaNet(1000, depth=depth, reparameterized=True) for depth in range(5, 14)}
    residual = {depth: ResNet(depth) for depth in (18, 34, 50, 101, 152)}
    depths, nets = zip(*vanilla.items(), *residual.items(), strict=True)
    macs = [count_macs(net, (3, 224, 224)) for net in nets]
    seconds = _in_rounds([_forward(net, (1, 3, 224, 224), device) for net in nets], device)
    better = [
        float(spearmanr(latency, depths).statistic - spearmanr(latency, macs).statistic)
        for latency in zip(*seconds, strict=True)
    ]
    return Timed(better)


def merged_time(device: torch.device) -> Timed:
    """V9: the merged over the trained form, one image of 32 pixels."""
    forms = [
        VanillaNet(10, depth=6, width=64, stem_kernel=2, stem_stride=2, reparameterized=merged)
        for merged in (True, False)
    ]
    return Timed(_ratios(*_in_rounds([_forward(net, (1, 3, 32, 32), device, times=50) for net in forms], device)))


@cache
def _stochastic_depth() -> list[Variant]:
    return time_variants("resnet110", 0.5, 5, 3, {"precision": "32-true", "devices": 1})


def _ratios(over: Iterable[float], under: Iterable[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def _in_rounds(contenders: Sequence[Callable[[], None]], device: torch.device) -> list[list[float]]:
    """Seconds of each contender in each round; nobody is always first."""
    for contender in contenders:
        contender()
    seconds: list[list[float]] = [[] for _ in contenders]
    clock = clock_of(device, torch.get_num_threads())
    for number in range(ROUNDS):
        for index in in_turn(range(len(contenders)), number):
            start = clock()
            contenders[index]()
            seconds[index].append(clock() - start)
    return seconds


def _training_step(net: nn.Module, device: torch.device, half: torch.dtype | None) -> Callable[[], None]:
    net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(128, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    targets = torch.arange(128, device=device) % 10

    def step() -> None:
        with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
            logits = net(images)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()

    return step


def _forward(
    net: nn.Module, shape: tuple[int, int, int, int], device: torch.device, times: int = 1
) -> Callable[[], None]:
    net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.randn(shape, device=device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> Any:
        for _ in range(times):
            net(images)

    return forward
