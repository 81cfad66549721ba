"""``config.yaml``: the resolved configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from experiments.runs.metrics_csv import MetricsCSV
from experiments.runs.safe_yaml import read_yaml


class SaveConfig(SaveConfigCallback):
    """The resolved configuration, in the run directory and in Weights & Biases; of a resumed run, what is new in it.

    The file of a resumed run is replaced when training begins, so that settings that it can't begin with are not kept.
    """

    _unfinished: Path | None = None

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / "config.yaml"
        self._unfinished = path.with_name(".config.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        resolved = self.config.clone()
        if before := _loaded(path):
            resolved.ckpt_path = before.get("ckpt_path")
        _make_paths_absolute(resolved)
        self.parser.save(resolved, self._unfinished, skip_unset=False, overwrite=True, multifile=False)
        if before:
            for line in changes(before, _loaded(self._unfinished)):
                print(line)
        else:
            self._unfinished.replace(path)

        config = self.config.as_dict()
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsCSV):
                logger.log_hyperparams({name: config[name] for name in ("seed_everything", "model", "data", "trainer")})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._unfinished and self._unfinished.is_file():
            self._unfinished.replace(self._unfinished.with_name("config.yaml"))

    def on_exception(self, *_: Any) -> None:
        if self._unfinished:
            self._unfinished.unlink(missing_ok=True)


def _make_paths_absolute(config: Any) -> None:
    """A run can be resumed from another folder than it was begun in."""
    for part, name in (("data", "root"), ("model", "teacher"), ("model", "teacher_weights")):
        arguments = config[part].get("init_args", {})
        if isinstance(path := arguments.get(name), str) and Path(path).exists():
            arguments[name] = str(Path(path).absolute())


def changes(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """``name: old -> new`` of each setting in which two configurations differ."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from changes(before.get(key), after.get(key), f"{name}.{key}" if name else str(key))
    elif before != after:
        yield f"{name}: {before} -> {after}"


def _loaded(path: Path) -> dict[str, Any]:
    return read_yaml(path.read_text(encoding="utf-8")) if path.is_file() else {}
