"""``fathom fit --help`` on one page: the flags that most runs need, and where the others are listed."""

from __future__ import annotations

import textwrap
from typing import Any

import lightning as L

import callbacks
import lit_models
from datamodules.pipeline.image_data import ImageData
from experiments.cli import TRAINER_COMMANDS
from experiments.cli.command_line import NAME_HELP
from experiments.cli.short_names import known_classes
from experiments.cli.signatures import imported_class, parameters
from experiments.runs.wandb_logger import WandbOptions
from lit_models import ImageClassifier

Lines = dict[str, str]
"""Flags, and what each of them sets."""

RUN = {
    "--config RECIPE": "recipe that `fathom recipes` lists, or a YAML file; of several, later ones override",
    "--ckpt_path RUN": "checkpoint to start from: a file, or a run directory, which stands for its best one",
    "--name NAME": NAME_HELP,
    "--import PACKAGE": "package of yours with networks, data sets or callbacks; may lie in the current folder",
    "--seed_everything SEED": "seed of all random numbers (42)",
}
MODEL = {
    "optimizer": "name in timm.optim.list_optimizers(): sgd (with Nesterov momentum), adamw, lamb, …",
    "lr": "peak learning rate",
    "lr_batch_size": "batch size that lr is meant for; lr is then scaled to the batch size of the run",
    "weight_decay": "weight decay, from which biases and 1-D parameters are exempt",
    "schedule": "learning rate schedule: cosine, step or constant",
    "loss": "cross_entropy or binary_cross_entropy",
    "label_smoothing": "ε of label smoothing",
}
DATA = {
    "batch_size": "training images in a batch, per device",
    "train_fraction": "fraction of the training images to train on",
    "mixup_alpha": "α of mixup; 0 turns it off",
    "cutmix_alpha": "α of CutMix; 0 turns it off",
    "num_workers": "processes that load images",
}
TRAINER = {
    "max_epochs": "epochs to train",
    "accelerator": "cpu, gpu, …",
    "devices": "number of devices",
    "precision": "16-mixed (the default), bf16-mixed, 32-true, …",
    "accumulate_grad_batches": "batches in an optimizer step",
    "default_root_dir": "folder of the runs (runs)",
}
WANDB = {
    "mode": "offline, online or disabled",
    "project": "project to log to",
    "group": "group of the run, such as the seeds of one experiment",
}


def print_help(command: str) -> None:
    """Print the flags of ``fathom fit``, ``validate``, ``test`` or ``predict``."""
    needed = "--config RECIPE" if command == "fit" else "--ckpt_path RUN"
    print(f"usage: fathom {command} {needed} [options]\n\n{TRAINER_COMMANDS[command].capitalize()}.")
    for title, lines in sections().items():
        print(f"\n{title}")
        for flag, text in lines.items():
            print(textwrap.fill(text, 112, initial_indent=f"  {flag:35} ", subsequent_indent=" " * 38))
    print(
        f"\n`fathom {command} --help.all` lists every flag; --model.help CLASS, --model.net.help CLASS,\n"
        "--data.help CLASS and --trainer.callbacks.help CLASS list the arguments of a class."
    )


def sections() -> dict[str, Lines]:
    """The lines of the page by their titles."""
    return {
        "run": RUN,
        "model": {
            "--model CLASS": f"{', '.join(public_classes(lit_models, 'model'))} (ImageClassifier)",
            "--model.net CLASS": f"{', '.join(public_classes(lit_models, 'net'))}, timm:NAME or a class of yours",
            "--model.net.ARGUMENT VALUE": "argument of the network, such as --model.net.depth 20",
            **_flags("model", ImageClassifier, MODEL),
        },
        "data": {"--data CLASS": ", ".join(sorted(known_classes("data"))), **_flags("data", ImageData, DATA)},
        "training": {
            "--trainer.callbacks+ CLASS": f"add {', '.join(public_classes(callbacks, 'callbacks'))} or Lightning's",
            **_flags("trainer", L.Trainer, TRAINER),
        },
        "Weights & Biases": _flags("wandb", WandbOptions, WANDB),
    }


def public_classes(package: Any, setting: str) -> list[str]:
    """The public classes for a setting, without the callbacks that every run has."""
    known = {name: imported_class(path) for name, path in known_classes(setting).items() if hasattr(package, name)}
    return sorted(name for name, kind in known.items() if ".run." not in getattr(kind, "__module__", ""))


def _flags(prefix: str, kind: type, lines: Lines) -> Lines:
    """``lines`` for constructor parameters of ``kind``, with their defaults."""
    defaults = {name: parameters(kind)[name].default for name in lines}
    shown = {name: "" if defaults[name] is None else f" ({defaults[name]})" for name in lines}
    return {f"--{prefix}.{name}": text + shown[name] * ("(" not in text) for name, text in lines.items()}
