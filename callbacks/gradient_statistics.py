"""How much gradient reaches the layers of a network (Huang et al. 2016, figure 7)."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.run.internals import norms
from lit_models.interfaces import ResidualBlock, ResidualNetwork


class GradientStatistics(L.Callback):
    """Logs means over the steps of an epoch, of gradients as the optimizer gets them, before clipping:

    * ``gradient_mean_abs/<layer>``: the mean absolute gradient of the first convolution of the first residual block,
      over the steps in which that block runs. In a network without such blocks it is the first convolution of all.
    * ``gradient_norm/<stage>``: the norm of the gradient of each child of the network that has parameters; of a network
      that only wraps another, of the other's children.

    Values that are not finite, as those of the steps that a gradient scaler skips, are left out of the means.

    They are summed up on the device. All ranks have the same gradients, so a checkpoint holds the sums of one.
    """

    logs = ("gradient_mean_abs/*", "gradient_norm/*")

    def __init__(self) -> None:
        self._epoch = 0
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._find_layers(pl_module)

    def on_merge(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The network has other parameters than in ``setup``."""
        self._find_layers(pl_module)

    def _find_layers(self, pl_module: L.LightningModule) -> None:
        net = getattr(pl_module, "net", pl_module)
        blocks = net.residual_blocks() if isinstance(net, ResidualNetwork) else {}
        self._block: ResidualBlock | None = next(iter(blocks.values()), None)
        # Of the branch: a projection on the shortcut is registered before it.
        parameters = net.parameters() if self._block is None else self._block.branch_parameters()
        candidates = set(parameters)
        convolutions = ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
        self._first_conv = next((found for found in convolutions if found[1].weight in candidates), None)
        self._stages = stages(net)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        by_stage = {
            stage: gradients
            for stage, parameters in self._stages.items()
            if (gradients := [parameter.grad for parameter in parameters if parameter.grad is not None])
        }
        if not by_stage:
            return
        of_all = norms([gradient for gradients in by_stage.values() for gradient in gradients])
        of_stages = of_all.split([len(gradients) for gradients in by_stage.values()])
        metrics = {
            f"gradient_norm/{stage}": torch.linalg.vector_norm(part)
            for stage, part in zip(by_stage, of_stages, strict=True)
        }
        skipped = self._block is not None and self._block.gate is False
        if self._first_conv is not None and not skipped:
            name, conv = self._first_conv
            if conv.weight.grad is not None:
                metrics[f"gradient_mean_abs/{name}"] = conv.weight.grad.abs().mean()
        if self._epoch != trainer.current_epoch:  # not at its start: that hook is skipped after a resume
            self._epoch, self._sums, self._steps = trainer.current_epoch, {}, {}
        for name, value in metrics.items():
            finite = value.isfinite()
            for sums, addend in ((self._sums, torch.where(finite, value, 0)), (self._steps, finite.int())):
                sums[name] = sums[name].to(value.device) + addend if name in sums else addend

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._epoch == trainer.current_epoch:
            pl_module.log_dict({name: total / self._steps[name] for name, total in self._sums.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]
        self._sums = dict(state_dict["sums"])
        self._steps = {name: torch.as_tensor(steps) for name, steps in state_dict["steps"].items()}


def stages(net: nn.Module, prefix: str = "") -> dict[str, list[nn.Parameter]]:
    """The parameters of each child that has some; where there is only one child, of its children."""
    children = {name: child for name, child in net.named_children() if any(True for _ in child.parameters())}
    if len(children) == 1:
        ((name, child),) = children.items()
        return stages(child, f"{prefix}{name}.") or {f"{prefix}{name}": list(child.parameters())}
    return {f"{prefix}{name}": list(child.parameters()) for name, child in children.items()}
