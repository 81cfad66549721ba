"""What a checkpoint has brought to a network and its optimizer, compared with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_models.schema import SchemaError, is_number, shown


def check_kinds(state_dict: dict[str, Tensor], network: dict[str, Tensor]) -> None:
    """Raises :class:`SchemaError` for whole numbers where ``network`` has real ones, or the other way round."""
    for name, tensor in state_dict.items():
        if name in network and tensor.is_floating_point() != network[name].is_floating_point():
            raise SchemaError(f"state_dict.{name} is {shown(tensor)}, where one of {network[name].dtype} belongs")


def check_optimizer_state(optimizer: Any) -> None:
    """Compare what a checkpoint has brought to ``optimizer`` with its parameters and options.

    torch itself compares no more than the sizes of parameter groups.

    Raises:
        SchemaError: for the first value that the optimizer could not have written.
    """
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if not (default is None or isinstance(default, bool) or _are_alike(group.get(name), default)):
                raise SchemaError(
                    f"the optimizer's {name} is {shown(group.get(name))}, where one like {default} belongs"
                )
        names: dict[torch.Size, set[str]] = {}
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if not state:  # of a branch that was never drawn
                continue
            if state.keys() != names.setdefault(parameter.shape, set(state)):
                raise SchemaError(f"the optimizer has {', '.join(state)} of one parameter, and others of its like")
            for name, value in state.items():
                if name in _LIKE_THE_PARAMETER and value is not None and _shape(value) != parameter.shape:
                    raise SchemaError(
                        f"the optimizer's {name} is {shown(value)}, of a parameter of shape {tuple(parameter.shape)}"
                    )
                if name == "step" and not is_number(value):
                    raise SchemaError(f"the optimizer's step is {shown(value)}, where a number belongs")


_LIKE_THE_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg")


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) and value.is_floating_point() else None


def _are_alike(value: Any, default: Any) -> bool:
    if isinstance(default, int | float | Tensor):
        return isinstance(value, bool) or is_number(value)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(default) and all(map(_are_alike, value, default))
    return isinstance(value, type(default))
