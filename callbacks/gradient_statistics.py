"""How much gradient reaches the layers of a network (Huang et al. 2016, figure 7)."""

from __future__ import annotations

import lightning as L
from torch import nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lit_models.interfaces import ResidualBlock, ResidualNetwork


class GradientStatistics(L.Callback):
    """Logs means over the epoch, of gradients as the optimizer gets them, before clipping:

    * ``gradient_mean_abs/<layer>``: the mean absolute gradient of the first convolution of the first residual block,
      over the steps in which that block runs. In a network without such blocks it is the first convolution of all.
    * ``gradient_norm/<stage>``: the norm of the gradient of each child of the network that has parameters; of a network
      that only wraps another, of the other's children.
    """

    logs = ("gradient_mean_abs/*", "gradient_norm/*")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
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
        metrics = {}
        for stage, parameters in self._stages.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                metrics[f"gradient_norm/{stage}"] = get_total_norm(gradients)
        skipped = self._block is not None and self._block.gate is False
        if self._first_conv is not None and not skipped:
            name, conv = self._first_conv
            if conv.weight.grad is not None:
                metrics[f"gradient_mean_abs/{name}"] = conv.weight.grad.abs().mean()
        pl_module.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)


def stages(net: nn.Module, prefix: str = "") -> dict[str, list[nn.Parameter]]:
    """The parameters of each child that has some; where there is only one child, of its children."""
    children = {name: child for name, child in net.named_children() if any(True for _ in child.parameters())}
    if len(children) == 1:
        ((name, child),) = children.items()
        return stages(child, f"{prefix}{name}.") or {f"{prefix}{name}": list(child.parameters())}
    return {f"{prefix}{name}": list(child.parameters()) for name, child in children.items()}
