"""What stochastic depth saves: ours beside constant depth, torchvision's and timm's, in one run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import mean, median
from typing import Any, Literal

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timm.layers import DropPath
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torchvision.ops import StochasticDepth as TorchvisionStochasticDepth

from callbacks.run.run_summary import hardware
from callbacks.stochastic_depth import Mode, StochasticDepth, survival_probs
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.timing import PRECISIONS, Precision, StepTimer, clock_of, in_turn, silence
from experiments.device import best_device, real_precision
from lit_models import CIFARResNet, ImageClassifier, ResNet

Network = Literal["resnet110", "resnet56", "resnet50"]
Batch = tuple[Tensor, Tensor]


@dataclass
class Variant:
    """A way to train, and what its turns measured."""

    name: str
    module: ImageClassifier
    mode: Mode | None = None
    seconds: list[float] = field(default_factory=list)
    """A step, mean of each round."""
    executed: list[float] = field(default_factory=list)
    """Share of the multiply-adds of all branches that the timed steps of each round did."""
    peak_bytes: int = 0


def stochastic_depth(
    network: Network = "resnet110",
    survival_prob: float = 0.5,
    precisions: tuple[Precision, ...] = PRECISIONS,
    devices: PositiveInt = 1,
    rounds: PositiveInt = 10,
    steps: PositiveInt = 4,
) -> None:
    """Time training steps of constant depth and of four ways to drop branches, side by side.

    All train the same network on the same random images, through the Trainer and in turns. A round times some steps
    of each, and ratios to constant depth are taken within the round: of the time, and of the time to the work that was
    done. How much that is depends on the draws, and differs from round to round.

    Args:
        network: resnet110 and resnet56 for CIFAR with 128 images of 32 pixels, resnet50 with 32 images of 128 pixels.
        survival_prob: p_L of linear decay.
        precisions: of the Trainer; a table for each.
        devices: more than one train with the strategy ddp, each on as many images.
        rounds: turns of each.
        steps: that are timed in a turn.
    """
    for precision in precisions:
        options = {"precision": precision, "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
        variants = time_variants(network, survival_prob, rounds, steps, options)
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            batch_size, image_size = _size(network)
            device = hardware(best_device())
            title = (
                f"{network}, {batch_size} images of {image_size} pixels, {real_precision(precision)}, "
                f"p_L = {survival_prob:g}, {devices} × {device}, {rounds} rounds of {steps} steps"
            )
            Console(width=140).print(_table(title, variants))


def time_variants(
    network: Network, survival_prob: float, rounds: int, steps: int, options: dict[str, Any]
) -> list[Variant]:
    """Constant depth and the four ways to drop branches, with what each of their turns measured.

    Args:
        network: see :func:`stochastic_depth`.
        survival_prob: p_L of linear decay.
        rounds: turns of each.
        steps: that are timed in a turn.
        options: of the Trainer.
    """
    silence()
    keep_freed_memory()  # as the data modules do in a run
    batch_size, image_size = _size(network)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    batch = (images.to(memory_format=torch.channels_last), torch.arange(batch_size) % 10)
    variants = _variants(network, survival_prob)
    for variant in variants:
        memory = _PeakMemory()
        _fit(variant, [batch] * 2, survival_prob, 0, memory, options)
        variant.peak_bytes = memory.peak_bytes
    first_rank = int(os.environ.get("LOCAL_RANK", 0)) == 0
    for number in track(range(rounds), "rounds", console=Console(stderr=True), disable=not first_rank):
        for variant in in_turn(variants, number):
            timer = _Timer()
            _fit(variant, [batch] * (steps + 2), survival_prob, number, timer, options)
            variant.seconds.append(mean(timer.seconds[1:]))
            variant.executed.append(mean(timer.executed[1:-1]))
    return variants


def _size(network: Network) -> tuple[int, int]:
    """Images in a batch, and their pixels."""
    return (32, 128) if network == "resnet50" else (128, 32)


def _variants(network: Network, survival_prob: float) -> list[Variant]:
    def classifier(drop: Callable[[float], nn.Module] | None = None) -> ImageClassifier:
        torch.manual_seed(0)
        net: Any = ResNet(50) if network == "resnet50" else CIFARResNet(int(network[6:]), downsample="average_pool")
        blocks = net.residual_blocks().values()
        for block, prob in zip(blocks, survival_probs(len(blocks), survival_prob), strict=True):
            if drop is not None:
                last = "bn3" if network == "resnet50" else "bn2"
                setattr(block, last, nn.Sequential(block.last_norm, drop(1 - prob)))
        return ImageClassifier(net, 10, schedule="constant")

    return [
        Variant("constant depth", classifier()),
        Variant("ours, batch", classifier(), "batch"),
        Variant("ours, sample", classifier(), "sample"),
        Variant("torchvision StochasticDepth, batch", classifier(lambda p: TorchvisionStochasticDepth(p, "batch"))),
        Variant("timm DropPath", classifier(DropPath)),
    ]


def _fit(
    variant: Variant,
    batches: list[Batch],
    survival_prob: float,
    seed: int,
    callback: L.Callback,
    options: dict[str, Any],
) -> None:
    drops = [StochasticDepth(survival_prob, mode=variant.mode, seed=seed)] if variant.mode else []
    trainer = L.Trainer(
        max_steps=len(batches),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        callbacks=[callback, *drops],
        **options,
    )
    trainer.fit(variant.module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


class _Timer(StepTimer):
    """Notes the executed work too."""

    def __init__(self) -> None:
        super().__init__(lambda device: clock_of(device, torch.get_num_threads())())
        self.executed: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.executed.append(float(trainer.logged_metrics.get("stochastic_depth/executed_work", 1.0)))


class _PeakMemory(L.Callback):
    """The most memory that the second step has allocated at once, beyond what was there before it."""

    peak_bytes = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True).__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if pl_module.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._profile.__exit__(None, None, None)
        events = self._profile.profiler.kineto_results.events()
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        self.peak_bytes = max(accumulate(change for _, change in changes))


def _table(title: str, variants: list[Variant]) -> Table:
    table = Table(title=title, title_justify="left")
    columns = ("", "executed work", "ms a step", "time", "fastest–slowest round", "time / work", "peak MiB")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    constant = variants[0].seconds
    for variant in variants:
        ratios = [ours / theirs for ours, theirs in zip(variant.seconds, constant, strict=True)]
        table.add_row(
            variant.name,
            f"{mean(variant.executed):.3f}",
            f"{1000 * median(variant.seconds):.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}–{max(ratios):.2f}",
            f"{median(ratio / work for ratio, work in zip(ratios, variant.executed, strict=True)):.2f}",
            f"{variant.peak_bytes / 2**20:.0f}",
        )
    return table
