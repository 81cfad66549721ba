"""The recipe of a task in words, for ``fathom explain``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from lit_models.cost import count_parameters
from lit_models.interfaces import BATCH_NORMS
from lit_models.settings import name_of

if TYPE_CHECKING:
    from lit_models.tasks.task import Task


def recipe(model: Task) -> dict[str, str]:
    """Network, optimizer and schedule by topic; the trainer of ``model`` knows its data."""
    configured: Any = model.configure_optimizers()
    optimizer = configured["optimizer"]
    exempt = "biases and 1-D parameters exempt" if model.no_bias_decay else "all parameters"
    decay = f"weight decay {model.weight_decay:g}, {exempt}"
    return {
        "network": f"{type(model.net).__name__}, {count_parameters(model.net):,} parameters",
        "optimizer": f"{model.optimizer_name} ({type(optimizer).__name__}), {decay}",
        "learning rate": _learning_rate(model),
        "groups": "\n".join(map(_group, optimizer.param_groups)),
        "zero-γ": _first_and_last(zero_gamma_layers(model.net)),
    }


def zero_gamma_layers(net: nn.Module) -> list[str]:
    """Names of the batch-normalisation layers whose γ is zero."""
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, BATCH_NORMS) and module.affine and not module.weight.any()
    ]


def _learning_rate(model: Task) -> str:
    """Scaling, schedule, and the learning rate at a few steps."""
    peak, steps, warmup = model.peak_lr, model.trainer.estimated_stepping_batches, model.warmup_steps
    lines = [f"{peak:g} at its peak"]
    if model.lr_batch_size is not None:
        lines[0] += f", which is {model.lr:g} for {model.lr_batch_size} images"
    schedule = name_of(model.schedule)
    if schedule == "step":
        schedule += f", a tenth after each of {', '.join(f'{epoch:g}' for epoch in model.milestones)} epochs"
    lines.append(f"{warmup:,} steps of warm-up, then {schedule}" if warmup else schedule)
    if not math.isinf(steps):
        factor, last = model.lr_factor(), int(steps) - 1
        shown = dict.fromkeys((0, min(warmup, last), last // 2, last))
        lines.append(", ".join(f"{peak * factor(step):.3g} in step {step + 1:,}" for step in shown))
    return "\n".join(lines)


def _group(group: dict[str, Any]) -> str:
    count = sum(parameter.numel() for parameter in group["params"])
    scale = f", learning rate × {group['lr_scale']:.3g}" if "lr_scale" in group else ""
    return f"weight decay {group['weight_decay']:g}{scale}: {count:,} parameters in {len(group['params'])} tensors"


def _first_and_last(layers: list[str]) -> str:
    if len(layers) < 2:
        return layers[0] if layers else "none"
    return f"{len(layers)} layers, {layers[0]} to {layers[-1]}"
