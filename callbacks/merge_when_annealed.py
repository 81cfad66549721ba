"""Train deep, then shallow: pairs of convolutions merged in mid-fit, as soon as they are linear in a row."""

from __future__ import annotations

import copy
import inspect
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.activation_annealing import ActivationAnnealing
from callbacks.branch_gates import gates_branches
from callbacks.compile import Compile
from callbacks.merge_proof import check_num_images, compare_merged
from callbacks.requirements import network_with
from callbacks.run.internals import reduce_gradients_anew
from callbacks.run.ranks import broadcast_buffers
from lit_models.cost import count_parameters
from lit_models.interfaces import DeeplyTrained
from lit_models.surgery.reparameterize import pairs_merged
from lit_models.tasks.task import Task


class MergeWhenAnnealed(L.Callback):
    """Merges the pairs of convolutions before the first batch of the first epoch with λ = 1, and trains on.

    At λ = 1 a pair is conv → BN → conv → BN. The BN between the two is folded with its running statistics; the BN after
    them stays, since it normalises by the statistics of the batch, which no weight can stand for. In evaluation mode
    the network computes what it did, which is proven on images of the batch. In training mode the BN that stays removes
    whatever shift the other one made, so that a step differs in one thing: channels between the two convolutions are no
    longer scaled by the batch's standard deviation, but by the running one.

    The network is then what ``deep_training: false`` builds, and its checkpoints say so: they are loaded, resumed,
    tested and merged at the end like those of any network. Averaged weights are merged by themselves.

    The optimizer keeps its state of all parameters that stay. For those of a merged convolution it begins anew:
    momentum and squared gradients of a product don't follow from those of its factors.

    Args:
        num_images: Number of images of the batch to compare on.

    Raises:
        MisconfigurationException: For no images; in ``setup``, for a network without pairs, one that can't be built
            without, and callbacks and strategies that hold on to parameters; at the start, where λ is below 1 and
            nothing moves it.
        MergeError: If the logits differ by more than rounding; the network is then as it was trained.
    """

    def __init__(self, num_images: int = 32) -> None:
        check_num_images(self, num_images)
        self.num_images = num_images
        self._report: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._net: Any = network_with(DeeplyTrained, pl_module, self)
        if "deep_training" not in inspect.signature(type(self._net)).parameters:
            raise MisconfigurationException(
                "MergeWhenAnnealed writes checkpoints of a network without pairs of convolutions, and"
                f" {type(self._net).__name__} can't be built so: add an argument `deep_training: bool = True` to its"
                " constructor"
            )
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise MisconfigurationException(
                "MergeWhenAnnealed replaces parameters in mid-fit, which"
                f" {type(trainer.strategy).__name__} has divided up: set --trainer.strategy to ddp"
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for other in callbacks:
            if gates_branches(other) or (isinstance(other, Compile) and other.graphs):
                raise MisconfigurationException(
                    f"MergeWhenAnnealed replaces parameters in mid-fit, and {type(other).__name__} holds on to those"
                    " there are at the start: remove one of the two"
                )
        if any(isinstance(other, ActivationAnnealing) for other in callbacks[callbacks.index(self) :]):
            raise MisconfigurationException(
                "MergeWhenAnnealed has to be listed after ActivationAnnealing, which moves λ to 1"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._net.deep_training and not self._report:  # else a checkpoint has it, from after the merge
            raise MisconfigurationException(
                f"MergeWhenAnnealed finds no pairs of convolutions in this {type(self._net).__name__}: set its"
                " deep_training to true, or remove the callback"
            )
        annealed = any(isinstance(other, ActivationAnnealing) for other in trainer.callbacks)  # type: ignore[attr-defined]
        if self._net.deep_training and not annealed and self._net.activation_lambda < 1:
            raise MisconfigurationException(
                "MergeWhenAnnealed waits for λ = 1, and nothing moves it from"
                f" {self._net.activation_lambda.item():.4g}: add ActivationAnnealing before it"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not at the start of the epoch: that hook is skipped after a resume, and λ not yet that of the epoch.
        if batch_idx == 0 and self._net.deep_training and self._net.activation_lambda == 1:
            self._merge(trainer, cast(Task, pl_module), batch[0][: self.num_images].detach())

    def _merge(self, trainer: L.Trainer, module: Task, images: torch.Tensor) -> None:
        broadcast_buffers(module)  # ranks have running statistics of their own, and would merge with them
        net = self._net
        trained = copy.deepcopy(cast(nn.Module, net)).cpu().float().eval()
        report: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "parameters": count_parameters(net),
        }
        report |= compare_merged(trained, pairs_merged, images.float().cpu(), "the network stays as it was")
        net.merge_pairs()
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(other, "on_merge"):
                other.on_merge(trainer, module)
        module.renew_parameters()
        if "net" in module.hparams:
            module.hparams["net"].setdefault("init_args", {})["deep_training"] = False
        reduce_gradients_anew(trainer)
        self._report = report | {"parameters_merged": count_parameters(net)}

    def report(self) -> dict[str, Any]:
        """The ``merge_when_annealed`` part of the run's summary."""
        return {"merge_when_annealed": self._report} if self._report else {}

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        return {"merge": "pairs of convolutions, before the first epoch with λ = 1; the rest trains shallow"}

    def state_dict(self) -> dict[str, Any]:
        return self._report

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._report = dict(state_dict)
