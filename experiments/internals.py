"""Private names of other packages, all that this room uses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI, _InstantiatorFn
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor
from torch.export import ExportedProgram

SEEN_WITH = {"lightning": "2.6.6", "torch": "2.14.1", "wandb-workspaces": "0.4.13"}
OVERRIDDEN = {
    "FathomCLI": {"_add_instantiators", "_get", "_parse_ckpt_path"},
    "_Writer": {"_check_log_dir_exists", "_record_new_keys"},
    "DispensableWandbLogger": {"_experiment", "_offline", "_save_dir", "_wandb_init"},
}
"""Classes of this room, and what they share with a base class of another package."""


RESTORING = ("restore_training_state", "_restore_modules_and_callbacks")
"""Lightning's functions that bring a checkpoint into the parts of a run."""


def attach_data(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> None:
    """Let the loops of ``trainer`` take their batches from ``data``, as ``trainer.fit`` does."""
    trainer._data_connector.attach_data(model, datamodule=data)


def workspace_view(workspace: Any) -> dict[str, Any]:
    """What would be sent to Weights & Biases when a workspace of ``wandb_workspaces`` is saved."""
    return workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


class RecordFacts(_InstantiatorFn):
    """Gives a module its hyperparameters as written, with the facts that its constructors have been given.

    Lightning's own expects that every linked argument has a parameter, and a place in the configuration.
    """

    def __init__(self, cli: LightningCLI, key: str, accepted: set[str]) -> None:
        super().__init__(cli, key)
        self._accepted = accepted

    def __call__(self, class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        self.cli._dump_config()
        links = {key: value for key, value in applied_instantiation_links.items() if key in self._accepted}
        for key in links:
            _make_place(self.cli.config_dump, key)
        return super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)


def _make_place(settings: dict[str, Any], key: str) -> None:
    """Dictionaries down to ``key``, of which an empty one is not dumped."""
    for name in key.split(".")[:-1]:
        settings = settings.setdefault(name, {})


def starts_from_this_process(trainer: L.Trainer) -> bool:
    """Whether the strategy of ``trainer`` forks or spawns its processes, and runs no command anew."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def compile_ahead(program: ExportedProgram, path: Path) -> None:
    """Compile ``program`` for the processor it is on, and write the package, a ``.pt2``, to ``path``."""
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def weights_packed_once() -> AbstractContextManager[Any]:
    """Code that is generated within it holds its weights as constants, in the layout that their kernels want."""
    return torch._inductor.config.patch(freezing=True)


def load_compiled(path: Path) -> Callable[[Tensor], Tensor]:
    """What :func:`compile_ahead` has written."""
    return torch._inductor.aoti_load_package(str(path))
