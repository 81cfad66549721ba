"""The checkpoint with the best value of a metric."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, whose whole state comes back when a run is resumed; after it was moved, too."""

    def state_dict(self) -> dict[str, Any]:
        return _with_paths(super().state_dict(), lambda path: os.path.relpath(path, self.dirpath))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = _with_paths(state_dict, lambda path: os.path.join(str(self.dirpath), path))
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
