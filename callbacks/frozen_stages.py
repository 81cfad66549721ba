"""Fine-tuning that leaves the first stages of a network, or its batch normalisation, as they are."""

from __future__ import annotations

from typing import cast

import lightning as L
from torch import nn

from callbacks.requirements import network_with
from lit_models.freezing import Norm, check_statistics, freeze
from lit_models.interfaces import Backbone


class FrozenStages(L.Callback):
    """Takes stages of a classifier out of its training.

    Args:
        stages: Everything that this many of the finest feature maps depend on is not trained, and its batch
            normalisation stays as it is.
        norm: What batch normalisation of all other stages does. train: as usual. statistics: it normalises with its
            running statistics, which stay as they are; γ and β are trained. frozen: all of it stays as it is.

    Raises:
        MisconfigurationException: In ``setup``, for a network that hands out no feature maps.
        NetworkError: For more stages than it has, and statistics of a network that was never trained.
    """

    def __init__(self, stages: int = 0, norm: Norm = "train") -> None:
        self.stages = stages
        self.norm: Norm = norm
        self._fixed: list[nn.Module] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            net = network_with(Backbone, pl_module, self)
            self._fixed = freeze(cast(nn.Module, net), self.stages, self.norm)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        check_statistics(self._fixed, self.norm)
        for module in self._fixed:  # a validation gives each module its mode back
            module.eval()
