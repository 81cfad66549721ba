"""Deep networks with stochastic depth (Huang et al. 2016): train short networks, evaluate the deep one."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from callbacks.branch_gates import BranchGates
from callbacks.run.reseeding import seed_of_run
from lit_models.cost import count_branch_macs
from lit_models.errors import check_choice
from lit_models.interfaces import Window
from lit_models.tasks.logging_steps import is_logging_step

Decay = Literal["linear", "uniform"]
Mode = Literal["batch", "sample"]


def survival_probs(num_blocks: int, last: float, decay: Decay = "linear") -> list[float]:
    """p_l of the blocks l = 1 … L for ``last`` = p_L: 1 − l/L·(1 − p_L) (equation 4), or p_L everywhere."""
    if decay == "uniform":
        return [last] * num_blocks
    return [1 - block / num_blocks * (1 - last) for block in range(1, num_blocks + 1)]


def draw_gates(probs: list[float], mode: Mode, seed: int, step: int) -> list[bool | Window]:
    """The gates of an optimizer step, one for each survival probability.

    They are a function of the arguments: every process draws the same, and a resumed run those of an unbroken one.
    """
    draws, roundings = np.random.default_rng([seed, step]).random((2, len(probs))).tolist()
    if mode == "batch":
        return [draw < prob for draw, prob in zip(draws, probs, strict=True)]
    return [Window(start, prob, u) for start, prob, u in zip(draws, probs, roundings, strict=True)]


class StochasticDepth(L.Callback):
    """Skips residual branches at random in training; evaluation sees them all.

    Modes:

    * ``batch``, the paper: each branch runs in a step with probability p_l, or not at all: no forward, no backward,
      no update of its batch statistics. Its weights stay as they are, unless ``decay_skipped``.
    * ``sample``: each branch runs on ⌊p_l·N + u⌋ of the N images, drawn anew for each branch and step, with u uniform
      in [0, 1): p_l·N on average, for every N.

    Both cost what they run. ``sample`` also copies activations, to gather the images of a window that wraps and to add
    the result back: it saves less time than ``batch`` and hardly any memory, and does not pay where convolutions are
    cheap beside copies. (A ResNet-50 with 32 images of 128 pixels on a CPU took 0.87 of the time of constant depth in
    float32 and 0.95 in bfloat16, where ``batch`` took 0.78 and 0.75.)

    The draws are a function of the seed and the optimizer step: they are the same on all devices and in all
    micro-batches of a step. Under ``strategy: ddp`` skipped branches hand over zero gradients, so that no device
    waits for them; ``find_unused_parameters`` is not needed.

    Whether the branches are scaled in training or in evaluation is the network's ``rescale``.

    Args:
        survival_prob: p_L of the last block; a list has one for each epoch, the last of which stays.
        decay: p_l of the other blocks, ``linear`` from 1 at the input or ``uniform``.
        mode: see above.
        ramp_epochs: epochs in which p_L goes from 1 to ``survival_prob``.
        seed: of the draws; the run's by default.
        decay_skipped: let momentum and weight decay go on moving the weights of branches that do not run, as in the
            authors' Torch code, which gives them zero gradients.

    Raises:
        MisconfigurationException: for a probability outside (0, 1], an unknown name or a ramp to a list; in ``setup``,
            for a network without residual blocks.
    """

    logs = ("stochastic_depth/*",)

    def __init__(
        self,
        survival_prob: float | list[float] = 0.5,
        decay: Decay = "linear",
        mode: Mode = "batch",
        ramp_epochs: int = 0,
        seed: int | None = None,
        decay_skipped: bool = False,
    ) -> None:
        per_epoch = survival_prob if isinstance(survival_prob, list) else [survival_prob]
        if not per_epoch or not all(0 < prob <= 1 for prob in per_epoch):
            raise MisconfigurationException(
                f"StochasticDepth needs survival probabilities above 0 and up to 1, not survival_prob={survival_prob}"
            )
        if ramp_epochs < 0:
            raise MisconfigurationException(f"StochasticDepth can't have ramp_epochs={ramp_epochs}; give 0 or more")
        if ramp_epochs and len(per_epoch) > 1:
            raise MisconfigurationException(
                "StochasticDepth takes ramp_epochs or a list as survival_prob, not both: write the ramp into the list"
            )
        last = per_epoch[0]
        self.schedule = [1 - (1 - last) * epoch / ramp_epochs for epoch in range(ramp_epochs)] + per_epoch
        check_choice("decay", decay, Decay, MisconfigurationException)
        check_choice("mode", mode, Mode, MisconfigurationException)
        self.decay: Decay = decay
        self.mode: Mode = mode
        self.seed = seed
        self.decay_skipped = decay_skipped
        self._gates = BranchGates()
        self._probs: list[float] = []
        self._macs: list[int] = []
        self._drawn: list[bool | Window] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._gates.attach(trainer, pl_module, self)
        self._probs, self._macs = [], []
        self._seed = seed_of_run(self.seed)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._gates.detach()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._macs:
            self._macs = count_branch_macs(self._gates.net, batch[0].shape[1:])
        # Not at the start of the epoch: that hook is skipped after a resume.
        self._set_probs(trainer.current_epoch)
        self._drawn = draw_gates(self._probs, self.mode, self._seed, trainer.global_step)
        self._gates.set(self._drawn)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if self.decay_skipped:
            self._gates.zero_gradients()
        else:
            self._gates.drop_gradients()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._gates.open()
        if not is_logging_step(trainer):
            return
        shares = [_share(gate, len(batch[0])) for gate in self._drawn]
        metrics = {
            "planned_work": self._share_of_work(self._probs),
            "executed_work": self._share_of_work(shares),
            "effective_depth": sum(shares),
        }
        # As tensors on the host: Lightning copies bare numbers to the device, which synchronises with it.
        pl_module.log_dict({f"stochastic_depth/{name}": torch.tensor(value) for name, value in metrics.items()})

    def on_exception(self, *_: Any) -> None:
        self._gates.open()

    def report(self) -> dict[str, Any]:
        """For ``summary.json``: what the last epoch planned.

        ``survival_probs`` are p_l of the blocks, in forward order; ``macs_saved`` are multiply-adds of an image's
        forward pass in training, expected over the draws.
        """
        if not self._macs:
            return {}
        planned = self._share_of_work(self._probs)
        return {
            "stochastic_depth": {
                "planned_work": planned,
                "macs_saved": round((1 - planned) * sum(self._macs)),
                "survival_probs": [round(prob, 6) for prob in self._probs],
            }
        }

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        return {"stochastic depth": f"p_L = {self.schedule[-1]:g}, {self.decay}, by {self.mode}"}

    def skipped_macs(self, image_shape: tuple[int, int, int]) -> float:
        """Multiply-adds of an image's forward pass that a step leaves out on average, once p_L is at its end."""
        probs = survival_probs(len(self._gates.blocks), self.schedule[-1], self.decay)
        return self._gates.skipped_macs(probs, image_shape)

    def _set_probs(self, epoch: int) -> None:
        last = self.schedule[min(epoch, len(self.schedule) - 1)]
        probs = survival_probs(len(self._gates.blocks), last, self.decay)
        if probs != self._probs:
            for block, prob in zip(self._gates.blocks, probs, strict=True):
                block.survival_prob.fill_(prob)
            self._probs = probs

    def _share_of_work(self, shares: list[float]) -> float:
        """Multiply-adds of branches that run on ``shares`` of the batch, relative to those of full depth."""
        return sum(share * macs for share, macs in zip(shares, self._macs, strict=True)) / sum(self._macs)


def _share(gate: bool | Window, batch_size: int) -> float:
    """Of the batch, that the branch runs on."""
    return gate.rows(batch_size)[1] / batch_size if isinstance(gate, Window) else float(gate)
