"""Whether a network learns as well in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

import lightning as L
import torch

from datamodules import Digits
from experiments.check.answers import Answer, Setting
from lit_models import CIFARResNet, ImageClassifier

SEEDS = 3


def precisions(setting: Setting) -> Iterator[Answer]:
    """Test top-1 on scikit-learn's digits: at least 94% in each precision, and within a point of float32's."""
    names = ["32-true", "bf16-mixed", *(["16-mixed"] if setting.on_gpu else [])]
    seeds = range(1 if setting.quick else SEEDS)
    reached: dict[str, list[float]] = {}
    for precision in names:
        reached[precision] = [100 * _top1(precision, seed, setting) for seed in seeds]
        average, before = mean(reached[precision]), mean(reached["32-true"])
        passed = average >= 94 and abs(average - before) <= (2 if setting.quick else 1)
        text = f"{average:.2f}% over {len(seeds)} seeds, {average - before:+.2f} points to 32-true"
        yield Answer(precision, text, passed, {"top1": reached[precision]})
    if not setting.on_gpu:
        yield Answer("16-mixed", "not applicable: on a CPU Lightning makes bf16-mixed of it")


def _top1(precision: Any, seed: int, setting: Setting) -> float:
    torch.manual_seed(seed)
    module = ImageClassifier(CIFARResNet(8, num_classes=10, in_channels=1, width=8), 10, lr=0.2)
    trainer = L.Trainer(
        accelerator="gpu" if setting.on_gpu else "cpu",
        devices=1,
        precision=precision,
        max_epochs=4 if setting.quick else 8,
        limit_val_batches=0,
        default_root_dir=setting.folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Digits(image_size=8, batch_size=64, seed=seed)
    trainer.fit(module, data)
    return trainer.test(module, data, verbose=False)[0]["test/top1"]
