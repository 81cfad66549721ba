"""What decides the outcome of a training: by this a run is found again, wherever it lies and whoever started it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cli.command_line import FathomCLI
from experiments.runs.directory import run_config
from experiments.runs.safe_yaml import read_yaml

OF_THE_TRAINER = (
    *("precision", "max_epochs", "max_steps", "limit_train_batches", "overfit_batches", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "deterministic", "devices", "num_nodes", "sync_batchnorm"),
    "callbacks",
)
"""Settings of the Trainer that change what is learned. The others say where it runs, and what is logged."""
WHERE_DATA_LIES = (
    *("root", "download", "num_workers", "on_device", "eval_batch_size", "max_pixels", "allow_changed_data", "seed"),
)
"""Settings of a data module that do not change the batches; the images themselves have a fingerprint."""


class _ResolvedError(Exception):
    """Carries the settings out of the command line before it makes anything of them."""


class _ConfigCLI(FathomCLI):
    def before_instantiate_classes(self) -> None:
        raise _ResolvedError(self.parser.dump(self.config, skip_unset=False))


def resolve(fit_args: list[str]) -> dict[str, Any]:
    """Every setting of ``fathom fit`` with these arguments, defaults included, as ``config.yaml`` would have it.

    Raises:
        UsageError, ArgumentError: where ``fathom fit`` would raise it.
    """
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    try:
        _ConfigCLI(["fit", *fit_args])
    except _ResolvedError as resolved:
        return read_yaml(str(resolved))["fit"]
    raise AssertionError("the command line ended without its settings")


def recipe(settings: Mapping[str, Any]) -> str:
    """Hash of what ``settings`` say about the outcome, but for seed and images.

    A setting that is off (null, false, 0, none or empty) is left out: a switch that a later release adds, and that is
    off, leaves earlier runs as they are.
    """
    data = settings["data"].get("init_args") or {}
    trainer = settings["trainer"]
    decisive = {
        "model": _taught_by(settings["model"]),
        "data": {name: value for name, value in data.items() if name not in WHERE_DATA_LIES},
        "trainer": {name: trainer.get(name) for name in OF_THE_TRAINER},
    }
    return _hash(_without_what_is_off(decisive))


def recipe_of_run(run: Path) -> str:
    """:func:`recipe` of a run directory, with defaults of today for settings that are younger than the run."""
    return recipe(resolve(["--config", str(run / "config.yaml"), "--ckpt_path", "null"]))


def key(recipe: str, data: str, seed: int, precision: str) -> str:
    """Name of one training: two that agree in all four would end with the same network."""
    return _hash([recipe, data, seed, precision])


def _taught_by(model: Mapping[str, Any]) -> dict[str, Any]:
    """``model`` with the recipe of its teacher in the place of a path."""
    arguments = dict(model.get("init_args") or {})
    teacher = arguments.get("teacher")
    if isinstance(teacher, str) and (config := run_config(Path(teacher))):
        arguments["teacher"] = recipe_of_run(config.parent)
    return {"class_path": model.get("class_path"), "init_args": arguments}


def _without_what_is_off(settings: Any) -> Any:
    if isinstance(settings, dict):
        kept = {name: _without_what_is_off(value) for name, value in settings.items()}
        return {name: value for name, value in kept.items() if value and value != "none"}
    if isinstance(settings, list):
        return [_without_what_is_off(value) for value in settings]
    return settings


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
