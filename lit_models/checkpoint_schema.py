"""What a checkpoint has to look like, before anything in it is used.

:data:`WEIGHTS` is asked of every checkpoint, :data:`TRAINING` of one that a training goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from lit_models.schema import (
    ANYTHING,
    BOOL,
    COUNT,
    FILE_NAME,
    INSIDE,
    LIGHTNINGS_INSTANTIATOR,
    NOTHING,
    NUMBER,
    SCALAR,
    SCALAR_OR_NONE,
    SETTINGS,
    TEXT,
    VERSION,
    WEIGHT,
    Rule,
    SchemaError,
    check,
    check_values,
    shown,
)

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
    "sums": {"value?": SCALAR, "cumulated_batch_size?": SCALAR, "_forward_cache?": SCALAR, "*": NOTHING},
}
_RUN = {
    "moment": Rule("batch, validation or end", lambda value: value in ("batch", "validation", "end")),
    "epoch_means": [
        {
            "logged": [_LOGGED],
            "metrics": {"*": {"updates": COUNT, "state": {"*": ANYTHING}}},
            "callback_metrics": {"*": SCALAR},
        }
    ],
    "loggers": [{"rows?": COUNT}],
}

METHODS = {name for name in dir(LambdaLR) if callable(getattr(LambdaLR, name))}
"""What the state of a schedule must not replace."""

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
    "lr_schedulers": [_STATE],
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
    # Modules of others may have no schedule, or one of another class.
    is_ours = str(checkpoint.get("hyper_parameters", {}).get("_class_path", "")).startswith("lit_models.")
    for name, counts in (("optimizer_states", [1]), ("lr_schedulers", [1] if is_ours else [0, 1])):
        if len(checkpoint[name]) not in counts:
            raise SchemaError(f"{name} has {len(checkpoint[name])} entries, where that of one optimizer belongs")
    (optimizer,) = checkpoint["optimizer_states"]
    groups, states = optimizer["param_groups"], optimizer["state"]
    numbers = [number for group in groups for number in group["params"]]
    if not numbers or numbers != list(range(len(numbers))):
        raise SchemaError("optimizer_states[0].param_groups do not number the parameters from 0 on")
    if not isinstance(states, dict) or not states.keys() <= set(numbers):
        raise SchemaError("optimizer_states[0].state has entries for parameters that are in no group")
    for number, state in states.items():
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise SchemaError(f"optimizer_states[0].state[{number}] is {shown(state)}, where values by name belong")
    for scheduler in checkpoint["lr_schedulers"]:
        if is_ours:
            _check_schedule(scheduler, len(groups))
        if methods := [name for name in scheduler if name in METHODS or not isinstance(name, str)]:
            raise SchemaError(f"lr_schedulers[0] replaces {methods[0]}, which is no value")
    _check_counts(checkpoint)


def _check_schedule(scheduler: dict[str, Any], groups: int) -> None:
    check(scheduler, _SCHEDULER, "lr_schedulers[0]")
    if not groups == len(scheduler["base_lrs"]) == len(scheduler["_last_lr"]):
        raise SchemaError(f"lr_schedulers[0] has not the learning rates of {groups} parameter groups")


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
