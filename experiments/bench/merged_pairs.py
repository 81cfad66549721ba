"""What a step of training saves once the pairs of convolutions of a VanillaNet are merged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from callbacks.run.run_summary import hardware
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.bare_loop import autocast
from experiments.bench.timing import PRECISIONS, Precision, clock_of, in_turn, ratio_and_spread
from experiments.device import best_device, real_precision
from lit_models import VanillaNet
from lit_models.surgery.reparameterize import pairs_merged


def merged_pairs(
    depth: PositiveInt = 6,
    width: PositiveInt = 32,
    image_size: PositiveInt = 32,
    batch_size: PositiveInt = 128,
    precisions: tuple[Precision, ...] = PRECISIONS,
    rounds: PositiveInt = 9,
    threads: PositiveInt = 1,
) -> None:
    """Time steps with AdamW of a VanillaNet at λ = 1, before and after its pairs of convolutions are merged.

    In turns; a ratio is taken within the round. With one thread on a CPU, seconds are those that the process has had.
    Memory is that of the activations that a forward pass keeps for the backward pass.

    Args:
        depth: of the VanillaNet.
        width: of its stem.
        image_size: side of the images; the stem is that of small images.
        batch_size: images in a step.
        precisions: of the steps; a table for each.
        rounds: turns of each.
        threads: of the CPU.
    """
    keep_freed_memory()  # as the data modules do in a run
    torch.set_num_threads(threads)
    for precision in precisions:
        _measure(depth, width, image_size, batch_size, precision, rounds, threads)


def _measure(
    depth: int, width: int, image_size: int, batch_size: int, precision: Precision, rounds: int, threads: int
) -> None:
    torch.manual_seed(0)
    device = best_device()
    deep = VanillaNet(10, depth=depth, width=width, stem_kernel=2, stem_stride=2)
    deep.set_activation_lambda(1.0)
    nets = {"pairs": copy.deepcopy(deep), "merged": pairs_merged(deep)}
    images = torch.randn(batch_size, 3, image_size, image_size, device=device)
    images = images.to(memory_format=torch.channels_last)
    for net in nets.values():
        net.to(device).to(memory_format=torch.channels_last)
    context = autocast(precision, device)
    steps = {name: _step(net, images, context) for name, net in nets.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    clock = clock_of(device, threads)
    for number in range(rounds + 1):
        for name in in_turn(list(steps), number):
            start = clock()
            steps[name]()
            if number:
                seconds[name].append(clock() - start)
    table = Table(
        title=f"VanillaNet-{depth}, batch {batch_size}, {real_precision(precision)}, {hardware(device)},"
        f" {rounds} rounds"
    )
    for column in ("", "ms a step", "time", "fastest–slowest round", "activations kept, MB", "memory"):
        table.add_column(column, justify="right" if column else "left")
    with context():
        kept = {name: kept_for_backward(net, images) for name, net in nets.items()}
    for name in nets:
        ratio, spread = ratio_and_spread(seconds[name], seconds["pairs"])
        share = f"{kept[name] / kept['pairs']:.3f}"
        row = (f"{1000 * median(seconds[name]):.1f}", ratio, spread, f"{kept[name] / 1e6:.1f}", share)
        table.add_row(name, *row)
    Console(width=140).print(table)


def kept_for_backward(net: nn.Module, images: Tensor) -> int:
    """Bytes of activations that a forward pass keeps; weights are none."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(images)
    del logits
    return sum(kept.values())


def _step(net: nn.Module, images: Tensor, context: Callable[[], torch.autocast]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    targets = torch.arange(len(images), device=images.device) % 10

    def step() -> None:
        optimizer.zero_grad()
        with context():
            loss = F.cross_entropy(net(images).float(), targets)
        loss.backward()
        optimizer.step()

    return step
