"""What a callback requires of the network it is used with."""

from __future__ import annotations

from typing import TypeVar

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

Protocol = TypeVar("Protocol")


def network_with(protocol: type[Protocol], pl_module: L.LightningModule, callback: L.Callback) -> Protocol:
    """The network of ``pl_module``, which implements ``protocol``.

    Raises:
        MisconfigurationException: naming the callback and the network, if it does not.
    """
    net = getattr(pl_module, "net", pl_module)
    if not isinstance(net, protocol):
        raise MisconfigurationException(
            f"{type(callback).__name__} needs a network that implements lit_models.interfaces.{protocol.__name__};"
            f" {type(net).__name__} does not. Remove the callback or change the network"
        )
    return net
