"""What taking networks apart costs: single deletions beside one network after the other, and gradients by path length
beside ordinary backward passes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from callbacks.run.run_summary import hardware
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.bare_loop import autocast
from experiments.bench.timing import PRECISIONS, Precision, in_turn, now, ratio_and_spread
from experiments.device import best_device, real_precision
from experiments.unravel.decomposition import gradients_by_length
from experiments.unravel.lesions import lesioned, single_lesions
from experiments.unravel.path_gradients import residual_stack, stack_gradients
from experiments.unravel.variants import outputs
from lit_models import CIFARResNet
from lit_models.surgery.links import links


def lesion(
    depth: PositiveInt = 110,
    images: PositiveInt = 2000,
    batch_size: PositiveInt = 100,
    gradient_images: PositiveInt = 32,
    precisions: tuple[Precision, ...] = PRECISIONS,
) -> None:
    """Time all single deletions of a CIFAR ResNet, and its gradients by path length.

    Batch by batch in turns, ours and one pass of the gated network after the other, which must give the same logits.
    Then an ordinary backward pass, with gradients of the weights, and all that gives the gradients by length: one
    forward and backward pass, and the decomposition.

    Args:
        depth: 6n + 2.
        images: random ones of 32 pixels.
        batch_size: images at a time.
        gradient_images: at a time, for the gradients.
        precisions: of all; a table for each. Analyses themselves compute in float32.
    """
    keep_freed_memory()  # as runs do; else both wait for the system most of the time
    for precision in precisions:
        _measure(depth, images, batch_size, gradient_images, precision)


def _measure(depth: int, images: int, batch_size: int, gradient_images: int, precision: Precision) -> None:
    torch.manual_seed(0)
    net = CIFARResNet(depth).to(memory_format=torch.channels_last).eval()
    device = best_device()
    net.to(device)
    batch = torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    variants = [lesioned(links(net), lesion) for lesion in single_lesions(links(net))]
    rounds = -(-images // batch_size)
    context = autocast(precision, device)
    with torch.inference_mode(), context():
        net(batch)
        deletions = _in_turns(
            {
                "one after the other": lambda: partial(_one_after_the_other, net, batch),
                "shared beginnings": lambda: partial(_shared, net, variants, batch),
            },
            rounds,
            device,
        )
        if not torch.equal(_one_after_the_other(net, batch), _shared(net, variants, batch)):
            raise RuntimeError("links and gates give other logits: what they took can't be compared")

    few = torch.randn(gradient_images, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    targets = torch.arange(gradient_images, device=device) % 10
    with context():
        gradients = _in_turns(
            {
                "ordinary backward pass": lambda: _loss(net, few, targets).backward,
                "gradients by length": lambda: partial(_by_length, net, few, targets),
            },
            9,
            device,
        )
    title = (
        f"ResNet-{depth}, {len(variants)} blocks, {real_precision(precision)}, {hardware(device)},"
        f" {torch.get_num_threads()} threads; all deletions of {rounds * batch_size} images give the same logits"
    )
    table = Table("", "seconds a batch", "ratio", "fastest–slowest round", title=title, title_justify="left")
    for seconds in (deletions, gradients):
        reference = next(iter(seconds.values()))
        for name, measured in seconds.items():
            row = () if measured is reference else ratio_and_spread(measured, reference)
            table.add_row(name, f"{median(measured):.2f}", *row)
    Console(width=120).print(table)


def _in_turns(
    contestants: dict[str, Callable[[], Callable[[], Any]]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds in each round of what each has made ready; a round before the first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in track(range(rounds + 1), "rounds", console=Console(stderr=True)):
        for name in in_turn(list(contestants), number):
            contestant = contestants[name]()
            start = now(device)
            contestant()
            if number:
                seconds[name].append(now(device) - start)
    return seconds


def _one_after_the_other(net: CIFARResNet, images: Tensor) -> Tensor:
    """Logits with each block's gate shut, as one would do it: (L, N, K)."""
    logits = []
    for block in net.residual_blocks().values():
        block.gate = False
        logits.append(net(images))
        block.gate = None
    return torch.stack(logits)


def _shared(net: CIFARResNet, variants: list[Any], images: Tensor) -> Tensor:
    """The same by links."""
    logits = dict(outputs(links(net), variants, images))
    return torch.stack([logits[index] for index in range(len(variants))])


def _loss(net: CIFARResNet, images: Tensor, targets: Tensor) -> Tensor:
    net.zero_grad()
    return F.cross_entropy(net(images), targets, reduction="sum")


def _by_length(net: CIFARResNet, images: Tensor, targets: Tensor) -> None:
    chain = links(net)
    start, end = residual_stack(chain)
    inputs, gradients = stack_gradients(chain, images, targets)
    gradients_by_length(chain[start:end], inputs, gradients[-1])
