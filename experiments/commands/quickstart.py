"""Train, merge and test VanillaNet on digits, and print what came of it."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.cli.command_line import FathomCLI
from experiments.runs.fits import read_summary
from lit_models import ImageClassifier, load_checkpoint

CONFIG = Path(__file__).parents[1] / "vanillanet" / "vanillanet_digits.yaml"


def quickstart(runs: str = "runs") -> None:
    """Train a narrow VanillaNet-6 on scikit-learn's digits, merge it, test both forms and print what came of it.

    Args:
        runs: folder that gets the run directory.
    """
    cli = FathomCLI(["fit", "--config", str(CONFIG), "--trainer.default_root_dir", runs])
    run_directory = Path(cli.trainer.default_root_dir)
    forms = {
        "trained": load_checkpoint(run_directory / "checkpoints" / "last.ckpt"),
        "merged": load_checkpoint(run_directory / "merged.ckpt"),
    }
    accuracy = {name: test_top1(model, cli.datamodule) for name, model in forms.items()}
    images = torch.rand(1, cli.datamodule.in_channels, cli.datamodule.image_size, cli.datamodule.image_size)
    milliseconds = forward_milliseconds(list(forms.values()), images)
    merge = read_summary(run_directory)["merge"]

    table = Table("", *forms, title="VanillaNet-6 on handwritten digits, before and after the merge")
    table.add_row("test top-1", *(f"{100 * top1:.2f}%" for top1 in accuracy.values()))
    table.add_row("parameters", *(f"{merge[f'parameters_{form}']:,}" for form in forms))
    table.add_row("multiply-adds per image", *(f"{merge[f'macs_{form}']:,}" for form in forms))
    table.add_row("forward pass of one image", *(f"{median:.2f} ms" for median in milliseconds))
    Console().print(table)
    print(f"largest logit difference {merge['max_logit_difference_float32']:.1e} in float32,", end=" ")
    print(f"{merge['max_logit_difference_float64']:.1e} in float64")
    print(f"the run is in {run_directory}")


def test_top1(model: ImageClassifier, data: L.LightningDataModule) -> float:
    """Top-1 accuracy in float32 on the test images, in [0, 1]."""
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    return trainer.test(model, data, verbose=False)[0]["test/top1"]


@torch.inference_mode()
def forward_milliseconds(models: list[ImageClassifier], images: Tensor, rounds: int = 200) -> list[float]:
    """Median milliseconds of a forward pass of each model on ``images`` (N, C, H, W), measured in turns."""
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for model, measured in zip(models, times, strict=True):
            start = time.perf_counter()
            model(images)
            measured.append(1000 * (time.perf_counter() - start))
    return [statistics.median(measured) for measured in times]
