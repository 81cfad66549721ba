"""Training of the short paths alone (Veit et al. 2016, section 5)."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from callbacks.branch_gates import BranchGates
from callbacks.run.reseeding import seed_of_run


def draw_open_blocks(blocks: int, of: int, seed: int, step: int) -> list[bool]:
    """Gates of an optimizer step: ``blocks`` of them are open, drawn uniformly without replacement.

    They are a function of the arguments: every process draws the same, and a resumed run those of an unbroken one.
    """
    drawn = np.random.default_rng([seed, step]).choice(of, blocks, replace=False)
    return np.isin(np.arange(of), drawn).tolist()


class EffectivePathTraining(L.Callback):
    """Opens exactly m of n residual branches in each step of training, so that no path is longer than m.

    The others run neither forward nor backward, and their weights stay as they are, momentum and weight decay
    included. Transition blocks take part in the draw. In ResNet-110 the paper opens 23 of 54: path lengths then centre
    at 11.5, and 5.96% error against the 6.10% of the whole network.

    The paper does not say how the network is evaluated, so both ways are reported. The network's own, which
    ``val/top1`` and checkpoints are of, scales every branch by its survival probability m/n; ``val/top1_unscaled``
    and ``test/top1_unscaled`` leave all branches as they are, at the cost of a second forward pass. In both, batch
    normalisation has the statistics that it gathered while branches were skipped.

    Args:
        blocks: m. Twice the mean length of the paths that matter (see ``fathom paths``) lets as many train.
        seed: of the draws; the run's by default.

    Raises:
        MisconfigurationException: in ``setup``, for a network without residual blocks, with fewer than m, or one that
            rescales in training.
    """

    logs = ("val/top1_unscaled",)

    def __init__(self, blocks: int, seed: int | None = None) -> None:
        self.num_open = blocks
        self.seed = seed
        self._gates = BranchGates()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._gates.attach(trainer, pl_module, self)
        blocks = self._gates.blocks
        if not 1 <= self.num_open <= len(blocks):
            raise MisconfigurationException(
                f"EffectivePathTraining opens 1 to {len(blocks)} blocks of this {type(self._gates.net).__name__}, not"
                f" blocks={self.num_open}"
            )
        if any(block.rescale == "train" for block in blocks):
            raise MisconfigurationException(
                "EffectivePathTraining compares two ways to scale in evaluation, and this"
                f" {type(self._gates.net).__name__} rescales in training: set its rescale to eval"
            )
        if stage == "fit":
            self._seed = seed_of_run(self.seed)
            for block in blocks:
                block.survival_prob.fill_(self.num_open / len(blocks))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._gates.detach()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._gates.set(draw_open_blocks(self.num_open, len(self._gates.blocks), self._seed, trainer.global_step))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        self._gates.drop_gradients()

    def on_train_batch_end(self, *_: Any) -> None:
        self._gates.open()

    def on_exception(self, *_: Any) -> None:
        self._gates.open()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._log_unscaled(trainer, pl_module, batch, "val/top1_unscaled")

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._log_unscaled(trainer, pl_module, batch, "test/top1_unscaled")

    def report(self) -> dict[str, Any]:
        """For ``summary.json``."""
        blocks = len(self._gates.blocks)
        return {"effective_paths": {"open_blocks": self.num_open, "blocks": blocks}} if blocks else {}

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        return {"effective paths": f"{self.num_open} of {len(self._gates.blocks)} blocks open in each step"}

    def skipped_macs(self, image_shape: tuple[int, int, int]) -> float:
        """Multiply-adds of an image's forward pass that a step leaves out on average."""
        blocks = len(self._gates.blocks)
        return self._gates.skipped_macs([self.num_open / blocks] * blocks, image_shape)

    def _log_unscaled(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, name: str) -> None:
        images, targets = batch
        self._gates.set([True] * len(self._gates.blocks))
        try:
            with trainer.precision_plugin.forward_context():
                logits = pl_module(images)
        finally:
            self._gates.open()
        hits = (logits.argmax(1) == targets).float()
        pl_module.log(name, hits.mean(), on_epoch=True, batch_size=len(images), sync_dist=trainer.world_size > 1)
