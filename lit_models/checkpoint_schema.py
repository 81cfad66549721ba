"""What a checkpoint has to look like, before anything in it is used.

:data:`WEIGHTS` is asked of every checkpoint, :data:`TRAINING` of one that a training goes on from. A schema is

- a dict of schemas by name: a name that ends in ``?`` may be missing, ``"*"`` is for all others;
- a list of one schema, that of each item;
- a :class:`Rule`, of a value that is none of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lit_models.errors import CheckpointError

MOST_LEVELS, MOST_VALUES = 50, 500_000
"""Of nesting, and of values where what is shared counts each time it is reached."""


class SchemaError(CheckpointError):
    """Says where in a checkpoint there is what, and what belongs there; who knows the file adds its name."""


class Rule(NamedTuple):
    """What belongs in a place, in words, and whether a value is that."""

    words: str
    holds: Callable[[Any], bool]


def check(value: Any, schema: Any, place: str = "") -> None:
    """Compare ``value``, which :func:`check_values` has seen, with a schema.

    Raises:
        SchemaError: for the first difference.
    """
    if isinstance(schema, Rule):
        if not schema.holds(value):
            raise SchemaError(f"{place} is {_shown(value)}, where {schema.words} belongs")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise SchemaError(f"{place} is {_shown(value)}, where a list belongs")
        for i, item in enumerate(value):
            check(item, schema[0], f"{place}[{i}]")
    else:
        if not isinstance(value, dict):
            raise SchemaError(f"{place or 'it'} is {_shown(value)}, where values by name belong")
        known = {name.removesuffix("?") for name in schema}
        for name in schema:
            if name != "*" and not name.endswith("?") and name not in value:
                raise SchemaError(f"{_inside(place, name)} is missing")
        for name, item in value.items():
            if not isinstance(name, str):
                raise SchemaError(f"{place or 'it'} has {_shown(name)} as a name")
            inner = schema.get(name, schema.get(f"{name}?")) if name in known else schema.get("*")
            if inner is not None:
                check(item, inner, _inside(place, name))


def check_values(value: Any) -> None:
    """Let pass primitives, lists and dicts of a finite size, and tensors that hold all their elements on the CPU.

    No tensor is read: one that is expanded from a few bytes could have any number of elements.

    Raises:
        SchemaError: for the first other value.
    """
    for number, (place, level, item) in enumerate(_walk(value)):
        if level > MOST_LEVELS or number > MOST_VALUES:
            raise SchemaError(f"{place[:60]}… is nested too deeply, or contains itself")
        if isinstance(item, Tensor):
            if flaw := _flaw(item):
                raise SchemaError(f"{place} is {flaw}")
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            raise SchemaError(f"{place} is a whole number of more than 64 bits")
        elif not isinstance(item, _PLAIN):
            raise SchemaError(f"{place} is a {type(item).__name__}, where tensors and primitives belong")


_PLAIN = (type(None), bool, int, float, complex, str, bytes, dict, list, tuple, set, torch.dtype, torch.device)


def _walk(value: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value with its place and level; without recursion, since nobody knows how deep it goes."""
    todo = [("", 0, value)]
    while todo:
        place, level, item = todo.pop()
        yield place, level, item
        if isinstance(item, dict):
            todo += [(_inside(place, name), level + 1, inner) for name, inner in item.items()]
            todo += [(f"{place} (a name)", level + 1, name) for name in item if not isinstance(name, str)]
        elif isinstance(item, list | tuple | set):
            todo += [(f"{place}[{i}]", level + 1, inner) for i, inner in enumerate(item)]


def _flaw(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested or tensor.is_quantized:
        return f"a tensor of the kind {type(tensor).__name__}"
    if tensor.layout != torch.strided:
        return f"a tensor in the layout {tensor.layout}, where a dense one belongs"
    if tensor.device.type != "cpu":
        return f"a tensor on the device {tensor.device}, which has no values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"a tensor of {tensor.numel()} elements, which the file does not hold"
    return None


def _inside(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_number(value: Any) -> bool:
    """A finite one, as a primitive or as a tensor of one element."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and bool(value.isfinite())
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and PurePath(value).name == value and "\0" not in value and value != ".."


def _is_inside(value: Any) -> bool:
    return not isinstance(value, str) or ".." not in PurePath(value).parts


def _texts(value: Any) -> Iterator[Any]:
    for _, _, item in _walk(value):
        yield item
        if isinstance(item, dict):
            yield from item


def _names(value: Any) -> Iterator[Any]:
    for _, _, item in _walk(value):
        if isinstance(item, dict):
            yield from item


def _scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()


TEXT = Rule("a text", lambda value: isinstance(value, str))
BOOL = Rule("true or false", lambda value: isinstance(value, bool))
COUNT = Rule("a count, 0 or more", _is_count)
NUMBER = Rule("a finite number", _is_number)
ONE = Rule(
    "a tensor of one number", lambda value: isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
)
SCALAR = Rule("a tensor of one number", _scalar)
SCALAR_OR_NONE = Rule("a tensor of one number or nothing", lambda value: value is None or _scalar(value))
WEIGHT = Rule("a tensor of real numbers", lambda value: isinstance(value, Tensor) and not value.is_complex())
FILE_NAME = Rule("the name of a file in checkpoints/", lambda value: value == "" or _is_file_name(value))
INSIDE = Rule("a state without paths that lead out of the run", lambda value: all(map(_is_inside, _texts(value))))
SETTINGS = Rule("settings by name", lambda value: all(isinstance(name, str) for name in _names(value)))
ANYTHING = Rule("a value", lambda value: True)
NOTHING = Rule("nothing", lambda value: False)
VERSION = Rule(
    "a version of Lightning from 2 on",
    lambda value: (
        isinstance(value, str) and re.fullmatch(r"[2-9]\d?(\.\d{1,6}){1,3}(\.?[a-z]{1,4}\d{1,9})?", value) is not None
    ),
)
LIGHTNINGS_INSTANTIATOR = Rule("Lightning's", lambda value: value == "lightning.pytorch.cli.instantiate_module")

# Lightning's loops.
_FOUR = {"ready": COUNT, "started": COUNT, "processed": COUNT, "completed": COUNT}
_STATE: dict[str, Any] = {"*": ANYTHING}


def _progress(counts: dict[str, Rule]) -> dict[str, Any]:
    return {"total": counts, "current": counts}


_BATCHES = {**_progress(_FOUR), "is_last_batch": BOOL}
_READY_AND_COMPLETED = _progress({"ready": COUNT, "completed": COUNT})
_EVALUATION = {"state_dict": _STATE, "batch_progress": _BATCHES}
_FIT = {
    "state_dict": {"combined_loader?": [_STATE]},
    "epoch_progress": _progress(_FOUR),
    "epoch_loop.state_dict": {"_batches_that_stepped": COUNT},
    "epoch_loop.batch_progress": _BATCHES,
    "epoch_loop.scheduler_progress": _READY_AND_COMPLETED,
    "epoch_loop.automatic_optimization.state_dict": _STATE,
    "epoch_loop.automatic_optimization.optim_progress": {
        "optimizer": {
            "step": _READY_AND_COMPLETED,
            "zero_grad": _progress({"ready": COUNT, "started": COUNT, "completed": COUNT}),
        }
    },
    "epoch_loop.manual_optimization.state_dict": _STATE,
    "epoch_loop.manual_optimization.optim_step_progress": _READY_AND_COMPLETED,
    "epoch_loop.val_loop.state_dict": _STATE,
    "epoch_loop.val_loop.batch_progress": _BATCHES,
}
_LOOPS = {
    "fit_loop": _FIT,
    "validate_loop": _EVALUATION,
    "test_loop": _EVALUATION,
    "predict_loop": {"state_dict": _STATE, "batch_progress": _progress(_FOUR)},
}

_BEST = {
    **{f"{name}?": FILE_NAME for name in ("best_model_path", "kth_best_model_path", "last_model_path")},
    "best_model_score": SCALAR_OR_NONE,
    "current_score": SCALAR_OR_NONE,
    "best_k_models": {"*": SCALAR},
    "kth_value": SCALAR,
}
_CALLBACKS = {"RunSummary": {"seconds": NUMBER, "resumed": COUNT}, "BestCheckpoint": _BEST}
"""States of callbacks by the name of their class."""

_OPTIMIZER = {"state": ANYTHING, "param_groups": [{"params": [COUNT], "lr": NUMBER}]}
_SCHEDULER = {
    "base_lrs": [NUMBER],
    "_last_lr": [NUMBER],
    "last_epoch": COUNT,
    "_step_count": COUNT,
    "lr_lambdas?": [Rule("nothing", lambda value: value is None)],  # else what functions hold
}
_LOGGED = {
    "arguments": {
        **dict.fromkeys(("name", "fx"), TEXT),
        **dict.fromkeys(("prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx"), BOOL),
        **dict.fromkeys(("sync_dist", "rank_zero_only"), BOOL),
        "reduce_fx": Rule("mean, sum, min or max", lambda value: value in ("mean", "sum", "min", "max")),
        "metric_attribute": Rule("a text or nothing", lambda value: value is None or isinstance(value, str)),
        "*": NOTHING,
    },
    "sums": {"value?": ONE, "cumulated_batch_size?": ONE, "_forward_cache?": ONE, "*": NOTHING},
}
_RUN = {
    "moment": Rule("batch, validation or end", lambda value: value in ("batch", "validation", "end")),
    "epoch_means": [
        {
            "logged": [_LOGGED],
            "metrics": {"*": {"updates": COUNT, "state": {"*": ANYTHING}}},
            "callback_metrics": {"*": ONE},
        }
    ],
    "loggers": [{"rows?": COUNT}],
}

WEIGHTS: dict[str, Any] = {
    "state_dict": {"*": WEIGHT},
    "pytorch-lightning_version": VERSION,
    "hparams_name?": Rule("'kwargs'", lambda value: value == "kwargs"),
    "hyper_parameters?": {"_class_path?": TEXT, "_instantiator?": LIGHTNINGS_INSTANTIATOR, "*": SETTINGS},
    "epoch?": COUNT,
    "global_step?": COUNT,
    "loops?": _LOOPS,
    "callbacks?": {"*": INSIDE},
    "current_model_state?": {"*": WEIGHT},
    "averaging_state?": {"n_averaged": NUMBER},
    "optimizer_states?": ANYTHING,
    "lr_schedulers?": ANYTHING,
    "run?": ANYTHING,
    "MixedPrecision?": {"scale?": NUMBER, "_growth_tracker?": COUNT},
    # Of a data module, under the name of its class.
    "*": {"epoch?": COUNT, "offset?": COUNT},
}

TRAINING: dict[str, Any] = {
    "epoch": COUNT,
    "global_step": COUNT,
    "loops": _LOOPS,
    "callbacks": {"*": ANYTHING},
    "optimizer_states": [_OPTIMIZER],
    "lr_schedulers": [_SCHEDULER],
    "run?": _RUN,
}


def check_weights(checkpoint: Any) -> None:
    """Raises :class:`SchemaError` where ``checkpoint`` is not one that a network can be loaded from."""
    check_values(checkpoint)
    check(checkpoint, WEIGHTS)
    for name, state in checkpoint.get("callbacks", {}).items():
        if schema := _CALLBACKS.get(name.partition("{")[0]):
            check(state, schema, f"callbacks.{name.partition('{')[0]}")


def check_training(checkpoint: dict[str, Any]) -> None:
    """Raises :class:`SchemaError` where training can't go on from what :func:`check_weights` has let pass."""
    check(checkpoint, TRAINING)
    if not checkpoint["callbacks"]:
        raise SchemaError("callbacks is empty, where the states of a run belong")
    for name in ("optimizer_states", "lr_schedulers"):
        if len(checkpoint[name]) != 1:
            raise SchemaError(f"{name} has {len(checkpoint[name])} entries, where that of one optimizer belongs")
    (optimizer,), (scheduler,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    groups, states = optimizer["param_groups"], optimizer["state"]
    numbers = [number for group in groups for number in group["params"]]
    if not numbers or numbers != list(range(len(numbers))):
        raise SchemaError("optimizer_states[0].param_groups do not number the parameters from 0 on")
    if not isinstance(states, dict) or not states.keys() <= set(numbers):
        raise SchemaError("optimizer_states[0].state has entries for parameters that are in no group")
    for number, state in states.items():
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise SchemaError(f"optimizer_states[0].state[{number}] is {_shown(state)}, where values by name belong")
    if not len(groups) == len(scheduler["base_lrs"]) == len(scheduler["_last_lr"]):
        raise SchemaError(f"lr_schedulers[0] has not the learning rates of {len(groups)} parameter groups")
    if methods := [name for name in scheduler if not isinstance(name, str) or callable(getattr(LambdaLR, name, None))]:
        raise SchemaError(f"lr_schedulers[0] replaces {methods[0]}, which is no value")
    _check_counts(checkpoint)


def check_kinds(state_dict: dict[str, Tensor], network: dict[str, Tensor]) -> None:
    """Raises :class:`SchemaError` for whole numbers where ``network`` has real ones, or the other way round."""
    for name, tensor in state_dict.items():
        if name in network and tensor.is_floating_point() != network[name].is_floating_point():
            raise SchemaError(f"state_dict.{name} is {_shown(tensor)}, where one of {network[name].dtype} belongs")


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
                    f"the optimizer's {name} is {_shown(group.get(name))}, where one like {default} belongs"
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
                        f"the optimizer's {name} is {_shown(value)}, of a parameter of shape {tuple(parameter.shape)}"
                    )
                if name == "step" and not _is_number(value):
                    raise SchemaError(f"the optimizer's step is {_shown(value)}, where a number belongs")


_LIKE_THE_PARAMETER = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg")


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) and value.is_floating_point() else None


def _are_alike(value: Any, default: Any) -> bool:
    if isinstance(default, int | float | Tensor):
        return isinstance(value, bool) or _is_number(value)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(default) and all(map(_are_alike, value, default))
    return isinstance(value, type(default))


def _check_counts(checkpoint: dict[str, Any]) -> None:
    """The progress of training is counted in several places, which have to agree."""
    fit = checkpoint["loops"]["fit_loop"]
    for place, counts in _progresses(fit, "loops.fit_loop"):
        order = [counts[name] for name in ("ready", "started", "processed", "completed") if name in counts]
        if order != sorted(order, reverse=True):
            raise SchemaError(f"{place} has completed more than was begun: {counts}")
    steps = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    manual = fit["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    epochs = fit["epoch_progress"]["current"]["processed"]
    if checkpoint["global_step"] != steps + manual:
        raise SchemaError(f"global_step is {checkpoint['global_step']}, and {steps + manual} in loops.fit_loop")
    if abs(checkpoint["epoch"] - epochs) > 1:  # the end of an epoch is counted in one place after the other
        raise SchemaError(f"epoch is {checkpoint['epoch']}, and {epochs} in loops.fit_loop")


def _progresses(value: Any, place: str) -> Iterator[tuple[str, dict[str, int]]]:
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in ("total", "current"):
            yield f"{place}.{name}", item
        else:
            yield from _progresses(item, f"{place}.{name}")
