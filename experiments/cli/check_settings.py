"""Settings that no type forbids, and that would be noticed late or never."""

from __future__ import annotations

import math
from inspect import Parameter
from typing import Any, get_args

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import BestCheckpoint, LastCheckpoint
from experiments.cli.signatures import imported_class, parameters
from experiments.errors import UsageError
from experiments.runs.wandb_logger import WandbOptions

GROUPS = {
    "trainer": L.Trainer,
    "wandb": WandbOptions,
    "best_checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
}
"""Settings by name that are arguments of a class."""
LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""
LEAST = {
    **dict.fromkeys(("accumulate_grad_batches", "log_every_n_steps", "check_val_every_n_epoch"), 1),
    **dict.fromkeys(("gradient_clip_val", "min_epochs", "min_steps", "reload_dataloaders_every_n_epochs"), 0),
    "num_sanity_val_steps": -1,
}
"""Settings of the trainer, and the least value of each that means something."""

LIMITS = {
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
"""Of the batches that a command is for."""


def check_groups(config: Namespace) -> None:
    """Raises ``UsageError`` for a list or a number in the place of settings."""
    for name in GROUPS:
        if not isinstance(config[name], Namespace):
            raise UsageError(f"{name} takes settings by name, such as --{name}.NAME VALUE, not {config[name]}")


def check_seed(seed: int) -> None:
    """Raises ``UsageError`` for a seed that NumPy does not take."""
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"seed_everything is {seed}; give 0 to {LARGEST_SEED}")


def check_values(value: Any, name: str = "", parameter: Parameter | None = None) -> None:
    """Raises ``UsageError`` for a number in a configuration that is NaN, infinite or above 64 bits, and for a null.

    What ``parameter`` says of itself is allowed: an infinite default, and null where its type has it.
    """
    if isinstance(value, Namespace):
        known = parameters(GROUPS.get(name) or imported_class(value.get("class_path", "")))
        for key, item in vars(value).items():
            if key == "init_args" and isinstance(item, Namespace):
                for argument, given in vars(item).items():
                    check_values(given, f"{name}.{argument}", known.get(argument))
            else:
                check_values(item, f"{name}.{key}" if name else key, known.get(key) if name in GROUPS else None)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_values(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_values(item, f"{name}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value) and (not parameter or value not in (parameter.default,)):
        raise UsageError(f"{name} is {value}; give a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UsageError(f"{name} is {value:.3g}; give a number below 2^63")
    elif value is None and parameter and _needs_a_value(parameter):
        raise UsageError(f"{name} is null; leave it out for its default, {parameter.default}")


def _needs_a_value(parameter: Parameter) -> bool:
    return parameter.default not in (None, Parameter.empty) and not _may_be_null(parameter.annotation)


def _may_be_null(kind: Any) -> bool:
    return kind in (Any, None, type(None)) or any(map(_may_be_null, get_args(kind)))


def check_ranges(trainer: Namespace, command: str) -> None:
    """Raises ``UsageError`` for a setting of the trainer out of its range, which Lightning would not refuse."""
    if trainer[LIMITS[command]] == 0:
        raise UsageError(f"trainer.{LIMITS[command]} is 0, and fathom {command} would do nothing: leave it out")
    for name, least in LEAST.items():
        if trainer[name] is not None and trainer[name] < least:
            raise UsageError(f"trainer.{name} is {trainer[name]}; give at least {least}")
    if trainer.barebones:
        raise UsageError("trainer.barebones leaves out the files of a run: `fathom bench step` measures its speed")
    interval = trainer.val_check_interval
    if interval is not None and (not isinstance(interval, int | float) or interval <= 0):
        raise UsageError(
            f"trainer.val_check_interval is {interval}; give a share of an epoch, such as 0.5, or a number of batches"
        )
    if trainer.max_time is not None and not _seconds(trainer.max_time) > 0:
        raise UsageError(
            f"trainer.max_time is {trainer.max_time}; give days:hours:minutes:seconds, such as 00:12:00:00"
        )


def check_length(trainer: Namespace) -> None:
    """Raises ``UsageError`` for a fit of which nothing says how long it is; Lightning would train 1,000 epochs."""
    if trainer.max_epochs is None and trainer.max_steps == -1 and not (trainer.max_time or trainer.fast_dev_run):
        raise UsageError(
            "nothing says how long to train: set --trainer.max_epochs, --trainer.max_steps or --trainer.max_time"
        )


def _seconds(duration: Any) -> float:
    """Of a setting ``max_time``; 0 if it is none."""
    try:
        return Timer(duration).time_remaining() or 0.0
    except (MisconfigurationException, TypeError, OverflowError):
        return 0.0
