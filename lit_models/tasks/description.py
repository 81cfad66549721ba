"""How a LightningModule is described in its checkpoint: its class and arguments, in primitives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from inspect import Parameter, signature
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_models.internals import built_from_settings
from lit_models.settings import INSTANTIATOR, as_setting, import_path


def describe(module: L.LightningModule, net: nn.Module, **functions: Any) -> None:
    """Store the arguments of the constructor that calls this.

    LightningCLI hands them over as written. In Python some are objects, which a checkpoint must not hold: they are
    described, and ``net`` is left out if it does not know its arguments.

    Args:
        module: Of which the constructor is.
        net: Its argument ``net``.
        **functions: Its arguments that may be functions.

    Raises:
        MisconfigurationException: For a function that can't be described.
    """
    if built_from_settings():
        module.save_hyperparameters()
    else:
        module.save_hyperparameters(ignore=["net", *functions])
        try:
            module.hparams.update(as_setting(functions))
        except TypeError as error:
            raise MisconfigurationException(
                f"{' and '.join(functions)} are described in the checkpoint, and {error}"
            ) from error
        for name, value in _defaults(type(module)):
            module.hparams.setdefault(name, value)
        with suppress(TypeError):
            module.hparams["net"] = as_setting(net)
        with suppress(TypeError):
            module.hparams.update({"_class_path": import_path(type(module)), "_instantiator": INSTANTIATOR})
    _forget_where_weights_came_from(module)


def _defaults(kind: type) -> Iterator[tuple[str, Any]]:
    """Arguments with a default of the constructors of ``kind`` and of the tasks that it inherits from."""
    for base in kind.__mro__[: kind.__mro__.index(L.LightningModule)]:
        for name, parameter in signature(base.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is not Parameter.empty:
                yield name, parameter.default


def _forget_where_weights_came_from(module: L.LightningModule) -> None:
    """A checkpoint has weights: to load it must not need those that the network started from."""
    module.hparams["weights"] = None
    if "net" in module.hparams:
        module.hparams["net"] = without_pretrained(module.hparams["net"])


def without_pretrained(setting: Any) -> Any:
    """``setting``, the description of a network, with ``pretrained: false`` in it and in the networks within it."""
    if not isinstance(setting, dict):
        return setting
    forgotten = {name: without_pretrained(value) for name, value in setting.items()}
    return {**forgotten, "pretrained": False} if forgotten.get("pretrained") else forgotten
