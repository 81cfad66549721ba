"""Images per second: networks, ways to run them, the data pipeline, and several runs at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing import get_context
from statistics import median
from typing import Any, NamedTuple

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader

from callbacks import Compile, StochasticDepth
from datamodules.pipeline.allocator import keep_freed_memory
from experiments.bench.data import RandomPixels
from experiments.bench.timing import in_turn, now
from experiments.check.answers import Answer, Setting, not_applicable
from lit_models import CIFARResNet, ImageClassifier

PROCESSES = 6


class Way(NamedTuple):
    """A way to train a network."""

    name: str
    survival: str | None = None
    """Mode of stochastic depth."""
    backend: str | None = None
    """Of ``Compile``."""
    graphs: bool = False

    def callbacks(self) -> list[L.Callback]:
        """Those of a fit."""
        drops: list[L.Callback] = [StochasticDepth(0.5, mode=self.survival)] if self.survival else []  # type: ignore[arg-type]
        return drops + ([Compile(self.backend, self.graphs)] if self.backend else [])


EAGER = Way("eager")
DROPS = [Way("eager, stochastic depth by batch", "batch"), Way("eager, stochastic depth by sample", "sample")]
COMPILED = Way("compiled", backend="inductor")
CAPTURED = [
    Way("captured", backend="eager", graphs=True),
    Way("captured, stochastic depth by batch", "batch", "eager", graphs=True),
]


def throughput(setting: Setting) -> Iterator[Answer]:
    """Training steps through the Trainer, in turns: ratios are the medians of the rounds' ratios to eager steps."""
    keep_freed_memory()  # as the data modules do in a run
    depths, batch_sizes = ([8], [16]) if setting.quick else ([20, 56, 110], [128, 1024])
    for depth in depths:
        for batch_size in batch_sizes if setting.on_gpu else batch_sizes[:1]:
            yield from _compared(depth, batch_size, setting)
    if not setting.on_gpu:
        yield not_applicable("captured", "CUDA graphs need a GPU")
    yield from _pipeline(setting)


def _compared(depth: int, batch_size: int, setting: Setting) -> Iterator[Answer]:
    ways = [EAGER, *DROPS, *([] if setting.quick else [COMPILED]), *(CAPTURED if setting.on_gpu else [])]
    rounds, steps = (1, 2) if setting.quick else (3, 10) if setting.on_gpu else (3, 3)
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for way in in_turn(ways, number):
            if way.name not in failed:
                try:
                    seconds[way.name].append(_step_seconds(way, depth, batch_size, steps, setting))
                except Exception as error:
                    failed[way.name] = f"{type(error).__name__}: {error}"
    for way in ways:
        about = f"ResNet-{depth}, batch {batch_size}, {way.name}"
        if way.name in failed:
            yield Answer(about, failed[way.name], False)
            continue
        ratios = [ours / theirs for ours, theirs in zip(seconds[way.name], seconds[EAGER.name], strict=True)]
        rate = batch_size / median(seconds[way.name])
        numbers = {"images_per_second": rate, "step_seconds": seconds[way.name], "ratios": ratios}
        text = f"{rate:,.0f} images/s, time {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        if way is EAGER and setting.on_gpu:
            numbers["busy"] = _busy_share(depth, batch_size, setting)
            text += f", GPU busy {numbers['busy']:.0%}"
        yield Answer(about, text, None, numbers)


def _step_seconds(way: Way, depth: int, batch_size: int, steps: int, setting: Setting) -> float:
    timer = _Span(first=3)
    _fit(depth, batch_size, steps + timer.first, setting.on_gpu, [*way.callbacks(), timer])
    return timer.seconds / steps


class _Span(L.Callback):
    """Seconds from a step to the end of a fit. In between the host may run ahead of the device, as in any run."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.seconds = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.first:
            self.seconds = -now(pl_module.device)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds += now(pl_module.device)


def _fit(depth: int, batch_size: int, steps: int, on_gpu: bool, callbacks: list[L.Callback]) -> None:
    torch.manual_seed(0)
    module = ImageClassifier(CIFARResNet(depth), 10, schedule="constant")
    images = torch.randn(batch_size, 3, 32, 32).to("cuda" if on_gpu else "cpu", memory_format=torch.channels_last)
    batch = images, torch.arange(batch_size, device=images.device) % 10
    trainer = L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="16-mixed" if on_gpu else "bf16-mixed",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(module, DataLoader([batch] * steps, batch_size=None))  # type: ignore[arg-type]


class _Busy(L.Callback):
    """The share of the time of a few steps in which a GPU runs kernels."""

    share = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 3:
            self._profile = profile(activities=[ProfilerActivity.CUDA]).__enter__()
            self._start = now(pl_module.device)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = now(pl_module.device) - self._start
        self._profile.__exit__(None, None, None)
        self.share = sum(event.self_device_time_total for event in self._profile.key_averages()) / 1e6 / seconds


def _busy_share(depth: int, batch_size: int, setting: Setting) -> float:
    busy = _Busy()
    _fit(depth, batch_size, 10, setting.on_gpu, [busy])
    return busy.share


def _pipeline(setting: Setting) -> Iterator[Answer]:
    """The data pipeline of small images alone, normalised on the host and on the device."""
    data = RandomPixels(2_000 if setting.quick else 50_000)
    rates = {}
    for name, device in {"host": torch.device("cpu"), "device": setting.device}.items():
        seconds = []
        for epoch in range(2 if setting.quick else 4):
            start = now(setting.device)
            count = sum(len(images) for images, _ in data.batches("train", epoch, device=device))
            seconds.append(now(setting.device) - start)
        rates[name] = count / median(seconds[1:])
        if not setting.on_gpu:
            break
    text = ", ".join(f"{rate:,.0f} images/s normalised on the {name}" for name, rate in rates.items())
    yield Answer("small images: crop, flip, normalise", text, None, rates)


def side_by_side(setting: Setting) -> Iterator[Answer]:
    """Whether several small runs together get more out of a GPU than one after the other."""
    about = f"{PROCESSES} ResNet-20 at once against one"
    if not setting.on_gpu:
        yield not_applicable(about, "on a CPU they share its cores")
        return
    steps = 20 if setting.quick else 100
    alone, together = (_images_per_second(count, steps) for count in (1, PROCESSES))
    numbers = {"alone": alone, "together": together}
    yield Answer(about, f"{together / alone:.2f} × {alone:,.0f} images/s", None, numbers)


def _images_per_second(processes: int, steps: int) -> float:
    """Of all processes together, from the moment at which each of them has warmed up."""
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        barrier = manager.Barrier(processes)
        spans = pool.starmap(_train_when_all_are_ready, [(barrier, steps)] * processes)
    starts, ends = zip(*spans, strict=True)
    return processes * steps * 128 / (max(ends) - min(starts))


class _Starts(L.Callback):
    def __init__(self, barrier: Any) -> None:
        self.barrier = barrier

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 5:
            now(pl_module.device)
            self.barrier.wait(120)
            self.began = time.time()


def _train_when_all_are_ready(barrier: Any, steps: int) -> tuple[float, float]:
    starts = _Starts(barrier)
    _fit(20, 128, steps + 5, True, [starts])
    torch.cuda.synchronize()
    return starts.began, time.time()
