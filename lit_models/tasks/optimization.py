"""The optimizer of a network: its parameter groups, and the learning rate of a batch size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_models.errors import NetworkError
from lit_models.names import nearest
from lit_models.networks.timm_layers import layers_of


def check_optimizer(name: str) -> None:
    """Raises ``MisconfigurationException``, which names its neighbours, for an optimizer timm does not have."""
    names = [str(known) for known in list_optimizers()]
    if name.lower() not in names:
        hint = nearest(name, names, otherwise="sgd, momentum, adamw, lamb")
        raise MisconfigurationException(f"timm.optim has no optimizer {name!r}; near it are {hint}")


def check_layer_decay(net: nn.Module, layer_decay: float | None) -> None:
    """Raises ``MisconfigurationException`` where the layers of ``net`` can't have learning rates of their own."""
    if layer_decay is None:
        return
    if not 0 < layer_decay <= 1:
        raise MisconfigurationException(f"layer_decay is {layer_decay}; give a factor above 0 and up to 1")
    try:
        layers_of(net)
    except NetworkError as error:
        raise MisconfigurationException(str(error)) from error


def make_optimizer(
    net: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float,
    no_bias_decay: bool = True,
    layer_decay: float | None = None,
    head_lr_scale: float = 1.0,
    **arguments: Any,
) -> Optimizer:
    """One of timm's optimizers, with a parameter group for each weight decay and each layer's learning rate.

    Args:
        net: whose parameters are optimized.
        name: one of ``timm.optim.list_optimizers()``.
        lr: of the last layer; of all layers without ``layer_decay``.
        weight_decay: factor of the decay.
        momentum: for the optimizers that have one.
        no_bias_decay: exempt parameters by their shape, those with one dimension.
        layer_decay: r. Layer i of 0 … L, numbered by the network's ``group_matcher``, learns with r^(L − i)·lr.
        head_lr_scale: factor of the learning rate of the :func:`head_parameters`.
        **arguments: any other one of the optimizer. ``fused`` is on by default for parameters on a CUDA device: one
            kernel then updates them all, and a gradient scaler does not synchronise with the device.

    Raises:
        MisconfigurationException: for an argument that it does not have.
    """
    inner = get_optimizer_class(name, bind_defaults=False)
    takes_fused = "fused" in inspect.signature(inner).parameters
    if takes_fused and all(parameter.is_cuda for parameter in net.parameters()):
        arguments = {"fused": True} | arguments
    try:
        optimizer = create_optimizer_v2(
            net,
            opt=name,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            filter_bias_and_bn=no_bias_decay,
            layer_decay=layer_decay,
            **arguments,
        )
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"the optimizer {name} does not take these optimizer_args: {error}") from error
    if head_lr_scale != 1:
        _scale_head(optimizer, head_parameters(net), head_lr_scale)
    # timm leaves the scale to its own schedulers, and torch's know nothing of it.
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.register_load_state_dict_pre_hook(_stay_as_made)
    if isinstance(optimizer, torch.optim.SGD):
        optimizer.register_step_pre_hook(_momentum_from_zero)
    return optimizer


def head_parameters(net: Any) -> list[nn.Parameter]:
    """What ``net.head_parameters()`` returns, or the parameters of its classifier.

    Raises:
        MisconfigurationException: for a network that has neither that method nor ``get_classifier``.
    """
    if hasattr(net, "head_parameters"):
        return list(net.head_parameters())
    if not hasattr(net, "get_classifier"):
        raise MisconfigurationException(
            f"head_lr_scale needs a network that knows its head, by a method head_parameters or get_classifier, and"
            f" {type(net).__name__} has neither: set it to 1"
        )
    return list(net.get_classifier().parameters())


def _scale_head(optimizer: Optimizer, head: list[nn.Parameter], scale: float) -> None:
    """Move the parameters of the head into groups of their own, whose ``lr_scale`` is multiplied."""
    members = {id(parameter) for parameter in head}
    groups = []
    for group in optimizer.param_groups:
        trunk = [parameter for parameter in group["params"] if id(parameter) not in members]
        inside = [parameter for parameter in group["params"] if id(parameter) in members]
        groups += [{**group, "params": trunk}] if trunk else []
        groups += [{**group, "params": inside, "lr_scale": scale * group.get("lr_scale", 1.0)}] if inside else []
    optimizer.param_groups[:] = groups


def _momentum_from_zero(optimizer: Optimizer, *_: Any) -> None:
    """Momentum starts as zeros where fused SGD would make it itself, which without dampening comes to the same.

    Its kernel takes buffers for all parameters or for none, where blocks that are skipped get theirs later. And what it
    makes is uninitialised memory, which stays so where the first gradients overflow.
    """
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _stay_as_made(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint may come from another device: whether the optimizer is fused is its own business."""
    if "fused" not in optimizer.defaults:
        return state
    groups = [{**group, "fused": optimizer.defaults["fused"]} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def unscaled(closure: Callable[[], Any], optimizer: Optimizer, scaler: GradScaler | None) -> Callable[[], Any]:
    """``closure``, after which gradients are as they would be without a gradient scaler.

    Lightning leaves that to a fused optimizer, which does it in its step: too late for whoever clips or logs gradients.
    """

    def run() -> Any:
        loss = closure()
        if loss is not None:
            scaler.unscale_(optimizer)  # type: ignore[union-attr]
        return loss

    return closure if scaler is None or not is_fused(optimizer) else run


def is_fused(optimizer: Optimizer) -> bool:
    """Whether one kernel updates all parameters."""
    return bool(optimizer.defaults.get("fused"))


def take_parameters(optimizer: Optimizer, other: Optimizer) -> None:
    """Have ``optimizer`` train the parameters of ``other``, group by group, with its own settings and hooks.

    It keeps its state of parameters that it had. The others' begins anew, as in a first step.
    """
    for group, new in zip(optimizer.param_groups, other.param_groups, strict=True):
        group["params"] = new["params"]
    kept = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for parameter in [parameter for parameter in optimizer.state if parameter not in kept]:
        del optimizer.state[parameter]


def settings_of(optimizer: Any, arguments: Iterable[str]) -> list[dict[str, Any]]:
    """Hyperparameters of each parameter group as the user set them: peak lr, weight decay, momentum, ``arguments``."""
    names = ("initial_lr", "weight_decay", "momentum", *arguments)
    return [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]


def restore_settings(optimizer: Any, scheduler: Any, settings: list[dict[str, Any]]) -> None:
    """Re-apply ``settings`` after a checkpoint restored its own with the state of the optimizer.

    The learning rate is computed anew by ``scheduler``; without a changed setting it is bit-identical.
    """
    for group, set_by_user in zip(optimizer.param_groups, settings, strict=True):
        group.update(set_by_user)
    if isinstance(scheduler, LambdaLR):
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        for group, peak, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = peak * factor(scheduler.last_epoch)


def global_batch_size(trainer: L.Trainer) -> int:
    """Images of an optimizer step: those of the data module's batch × devices × accumulated batches.

    Raises:
        MisconfigurationException: without a data module that says its ``batch_size``.
    """
    batch_size = getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]
    if batch_size is None:
        raise MisconfigurationException(
            "lr_batch_size scales the learning rate to the batch size, which it asks of a data module's batch_size:"
            " fit with such a data module, or set lr_batch_size to null and lr to what the optimizer is to have"
        )
    return batch_size * trainer.world_size * trainer.accumulate_grad_batches
