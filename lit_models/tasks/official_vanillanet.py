"""The VanillaNet weights that the authors publish and their training writes, under our names and back."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_models.checkpoints import UNREADABLE, what_is_wrong
from lit_models.errors import CheckpointError
from lit_models.schema import WEIGHT, SchemaError, check, check_values

State = dict[str, Tensor]
Weights = Literal["model", "model_ema"]

# The learning rates of the official optimizer are scalars of NumPy, which calls their constructor by two names.
_SCALAR = np.float64(0).__reduce__()[0]
_OFFICIAL_GLOBALS: list[Any] = [
    argparse.Namespace,
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]


def from_official(state: State, source: Path) -> State:
    """Weights under our names. Raises ``CheckpointError`` for a name that official VanillaNets don't have."""
    merged = "cls.2.weight" in state
    ours = _renamed(state, _layer_names(_num_blocks(state, "stages"), merged), source)
    return ours | {"activation_lambda": torch.tensor(1.0)} if merged else ours


def to_official(state: State, source: Path) -> State:
    """Weights under official names, without λ, for which they have no place."""
    weights = {name: value for name, value in state.items() if name != "activation_lambda"}
    merged = "head.second.weight" not in state
    theirs = _layer_names(_num_blocks(state, "blocks"), merged)
    return _renamed(weights, {ours: official for official, ours in theirs.items()}, source)


def network_arguments(state: State, adaptive_pool: bool) -> dict[str, Any]:
    """Constructor arguments of the VanillaNet that ``state``, under our names, is of."""
    merged = "head.second.weight" not in state
    stem = state["stem.convs.first.weight" if merged else "stem.convs.first.0.weight"]
    head = state["head.first.weight" if merged else "head.second.weight"]
    return {
        "num_classes": head.shape[0],
        "in_channels": stem.shape[1],
        "depth": _num_blocks(state, "blocks") + 2,
        "width": stem.shape[0],
        "stem_kernel": stem.shape[-1],
        "stem_stride": 3 if adaptive_pool else stem.shape[-1],
        "series_order": state["stem.activation.conv.weight"].shape[-1] // 2,
        "adaptive_pool": adaptive_pool,
        "reparameterized": merged,
    }


def _layer_names(num_blocks: int, merged: bool) -> dict[str, str]:
    """Official name of every layer -> ours."""
    if merged:
        names = {"stem.0": "stem.convs.first", "stem.1": "stem.activation.conv", "cls.2": "head.first"}
        block = {"conv": "convs.first", "act": "activation.conv"}
    else:
        names = {
            "stem1.0": "stem.convs.first.0",
            "stem1.1": "stem.convs.first.1",
            "stem2.0": "stem.convs.second.0",
            "stem2.1": "stem.convs.second.1",
            "stem2.2": "stem.activation.conv",
            "stem2.2.bn": "stem.activation.bn",
            "cls1.2": "head.first.0",
            "cls1.3": "head.first.1",
            "cls2.0": "head.second",
        }
        block = {
            "conv1.0": "convs.first.0",
            "conv1.1": "convs.first.1",
            "conv2.0": "convs.second.0",
            "conv2.1": "convs.second.1",
            "act": "activation.conv",
            "act.bn": "activation.bn",
        }
    return names | {f"stages.{i}.{old}": f"blocks.{i}.{new}" for i in range(num_blocks) for old, new in block.items()}


def _renamed(state: State, layers: dict[str, str], source: Path) -> State:
    renamed = {}
    for name, value in state.items():
        layer, _, parameter = name.rpartition(".")
        if layer not in layers:
            raise CheckpointError(f"{source} holds {name}, which no VanillaNet has")
        renamed[f"{layers[layer]}.{parameter}"] = value
    return renamed


def _num_blocks(state: State, prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})


def official_facts(file: dict[str, Any]) -> dict[str, Any]:
    """λ, dropout and variant, as far as the epoch and the arguments of official training in the file tell them."""
    arguments, facts = file.get("args"), {}
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    epoch, decay_epochs = file.get("epoch"), arguments.get("decay_epochs")
    if isinstance(epoch, int) and isinstance(decay_epochs, int) and decay_epochs > 0 and epoch >= 0:
        share = min(epoch / decay_epochs, 1.0)
        linear = arguments.get("decay_linear", True)
        facts["activation_lambda"] = share if linear else 0.5 * (1 - math.cos(math.pi * share))
    if isinstance(drop := arguments.get("drop"), int | float):
        facts["dropout"] = float(drop)
    if isinstance(name := arguments.get("model"), str):
        facts["adaptive_pool"] = name.endswith("ada_pool")
    return facts


def official_weights(file: dict[str, Any], source: Path, choice: Weights | None) -> State:
    """The weights, which lie under ``model``, ``model_ema`` or at the top."""
    there = [name for name in ("model", "model_ema") if name in file]
    if choice is None and len(there) == 2:
        raise CheckpointError(
            f"{source} holds live weights (model) and averaged ones (model_ema), which the authors evaluate: add"
            " --weights model_ema, or --weights model"
        )
    if choice is not None and choice not in there:
        raise CheckpointError(f"{source} holds no {choice}: leave out --weights")
    weights = file[choice or there[0]] if there else file
    try:
        check_values(weights)
        check(weights, {"*": WEIGHT})
    except SchemaError as error:
        raise CheckpointError(f"{source} is neither official VanillaNet weights nor a checkpoint: {error}") from error
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    if not any(name.startswith(("stem.0.", "stem1.0.")) for name in weights):
        raise CheckpointError(f"{source} is neither official VanillaNet weights nor a checkpoint of this project")
    return weights


def read_official(path: Path) -> dict[str, Any]:
    """The file as tensors and primitives; official ones also hold the arguments they were trained with."""
    try:
        with torch.serialization.safe_globals(_OFFICIAL_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} {what_is_wrong(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name")
    return content


def official_state(path: Path) -> State | None:
    """Weights of an official file under our names, the averaged ones where it has both; ``None`` for another file.

    Raises:
        CheckpointError: for an official file with names that no VanillaNet has.
    """
    try:
        file = read_official(path)
    except (CheckpointError, FileNotFoundError):
        return None
    nested = file.get("model_ema", file.get("model", file))
    if not isinstance(nested, dict) or not any(
        str(name).removeprefix("module.").startswith(("stem.0.", "stem1.0.")) for name in nested
    ):
        return None
    choice: Weights | None = "model_ema" if {"model", "model_ema"} <= file.keys() else None
    ours = from_official(official_weights(file, path, choice), path)
    ours.setdefault("activation_lambda", torch.tensor(float(official_facts(file).get("activation_lambda", 1.0))))
    return ours
