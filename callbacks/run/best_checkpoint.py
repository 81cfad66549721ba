"""The checkpoint with the best value of a metric."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, for one file: the checkpoint with the best value of ``monitor``.

    Its whole state comes back when a run is resumed, also after the run was moved: it names files, not folders. In a
    run begun from a checkpoint of another one, where the file is not, the scores of the other do not count.

    Raises:
        MisconfigurationException: for a ``dirpath``, and a ``filename`` other than ``best``; for a ``save_top_k`` of
            several checkpoints, of which the last one would stay under the one name; and without ``monitor``, where
            nothing is best.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._best: dict[str, Any] = {}
        if self.dirpath is not None:
            raise MisconfigurationException(
                f"best_checkpoint.dirpath is {self.dirpath}: leave it out; the file is written into checkpoints/ of"
                " the run"
            )
        if self.filename not in (None, "best"):
            raise MisconfigurationException(
                f"best_checkpoint.filename is {self.filename}: leave it out; the file is best.ckpt, which the commands"
                " that take a run directory look for"
            )
        self.filename = "best"
        if self.save_top_k not in (0, 1) or self.monitor is None:
            raise MisconfigurationException(
                f"best_checkpoint has save_top_k {self.save_top_k} and the monitor {self.monitor}, and keeps one file,"
                " the best by its monitor: give save_top_k 1 and a monitor such as val/top1, and add"
                " lightning.pytorch.callbacks.ModelCheckpoint to trainer.callbacks for more"
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        self._note_best(trainer, before)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = self.best_model_score
        super().on_train_epoch_end(trainer, pl_module)
        self._note_best(trainer, before)

    def _note_best(self, trainer: L.Trainer, before: Tensor | None) -> None:
        if (score := self.best_model_score) is not None and score is not before:
            self._best = {"metric": self.monitor, "value": float(score), "epoch": trainer.current_epoch}

    def report(self) -> dict[str, Any]:
        """The ``best`` part of the run's summary: metric, value and epoch, counted from 0."""
        return {"best": self._best} if self._best else {}

    def state_dict(self) -> dict[str, Any]:
        return _with_paths(super().state_dict(), lambda path: os.path.relpath(path, self.dirpath))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = _with_paths(state_dict, lambda path: os.path.join(str(self.dirpath), PurePath(path).name))
        if not os.path.isfile(state["best_model_path"]):
            return
        super().load_state_dict(state | {"dirpath": self.dirpath})
        self.current_score = state["current_score"]


def _with_paths(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    named = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **state,
        "dirpath": None,
        **{name: state[name] and change(state[name]) for name in named},
        "best_k_models": {change(path): score for path, score in state["best_k_models"].items()},
    }
