"""The check by which a callback refuses a network that can't do what it is for."""

from __future__ import annotations

from typing import TypeVar

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

Protocol = TypeVar("Protocol")


def network_with(protocol: type[Protocol], pl_module: L.LightningModule, callback: L.Callback) -> Protocol:
    """The network of ``pl_module``, which has the methods of ``protocol``.

    Raises:
        MisconfigurationException: naming both sides, where it has not.
    """
    net = getattr(pl_module, "net", pl_module)
    if not isinstance(net, protocol):
        raise MisconfigurationException(
            f"{type(callback).__name__} needs a network with what lit_models.interfaces.{protocol.__name__} asks for,"
            f" and {type(net).__name__} has it not: remove the callback or change the network"
        )
    return net
