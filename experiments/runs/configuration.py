"""``config.yaml``: the resolved configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from experiments.runs.fits import read_configuration, setting
from experiments.runs.metrics_csv import MetricsCSV
from experiments.runs.safe_yaml import read_yaml
from experiments.runs.wandb_logger import DispensableWandbLogger
from lit_models.files import atomic


class SaveConfig(SaveConfigCallback):
    """Writes the resolved configuration into the run directory; prints what a resume changes.

    The file of a resumed run is replaced when training begins, so that settings that it can't begin with are not kept.
    """

    _resolved: str | None = None

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / "config.yaml"
        resolved = self.config.clone()
        if before := read_configuration(path.parent):
            _keep_what_it_began_from(resolved, before)
        elif resolved.get("ckpt_path"):
            resolved.ckpt_path = str(Path(resolved.ckpt_path).absolute())
        self._resolved = self.parser.dump(resolved, skip_unset=False)
        if before:
            for line in changes(before, read_yaml(self._resolved)):
                print(line)
        else:
            self._write(path)

        # For Weights & Biases see WandbRecord.
        others = [one for one in trainer.loggers if not isinstance(one, MetricsCSV | DispensableWandbLogger)]
        if others:
            config = read_yaml(self.parser.dump(self.config, skip_unset=False))
            for logger in others:
                logger.log_hyperparams({name: config[name] for name in ("seed_everything", "model", "data", "trainer")})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._resolved is not None:
            self._write(Path(trainer.default_root_dir) / "config.yaml")

    def _write(self, path: Path) -> None:
        with atomic(path) as file:
            file.write(self._resolved)
        self._resolved = None


def _keep_what_it_began_from(resolved: Any, before: dict[str, Any]) -> None:
    """A resumed run has the weights and the form of its own checkpoint; its record says what it was begun from."""
    net = "model.init_args.net.init_args"
    for name in ("ckpt_path", f"{net}.pretrained", f"{net}.deep_training"):
        value = setting(before, name)
        if name in resolved and (value is not None or name == "ckpt_path"):
            resolved[name] = value


def changes(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """``name: old -> new`` of each setting in which two configurations differ."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from changes(before.get(key), after.get(key), f"{name}.{key}" if name else str(key))
    elif before != after:
        yield f"{name}: {before} -> {after}"
