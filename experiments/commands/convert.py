"""Turn official VanillaNet weights into a checkpoint, or back."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from lit_models import CheckpointError, VanillaNet
from lit_models.checkpoints import UNREADABLE, classifier_checkpoint, read_checkpoint, what_is_wrong, write_atomically
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


def vanillanet(
    source: Path,
    destination: Path,
    weights: Weights | None = None,
    adaptive_pool: bool | None = None,
    activation_lambda: float | None = None,
) -> None:
    """Turn official VanillaNet weights into a checkpoint, or a checkpoint into weights under official names.

    Which of the two is seen from the file; depth, width, classes and n are read off the weights, and λ, dropout and
    variant off the arguments in a file of official training.

    Args:
        source: official training or deploy weights, or a checkpoint of this project.
        destination: file to write. It must not exist.
        weights: those to take of an official file with both: model_ema, the averaged ones, which the authors evaluate,
            or model, the live ones.
        adaptive_pool: whether the official weights are of the ada-pool variant, where the file does not name its model.
        activation_lambda: λ of official training weights, where the file does not name its epoch (default: 1, as it is
            once annealing has ended).
    """
    if destination.exists():
        raise MisconfigurationException(f"{destination} exists: remove it or choose another destination")
    file = _read(source)
    if "hyper_parameters" in file:
        _write_official(read_checkpoint(source), source, destination)
    else:
        said = _official_facts(file)
        if adaptive_pool is not None:
            said["adaptive_pool"] = adaptive_pool
        if activation_lambda is not None:
            said["activation_lambda"] = activation_lambda
        _write_ours(_official_weights(file, source, weights), said, source, destination)


def _write_official(checkpoint: dict[str, Any], source: Path, destination: Path) -> None:
    state = {name[4:]: value for name, value in checkpoint["state_dict"].items() if name.startswith("net.")}
    official = to_official(state, source)
    stem = official.get("stem.0.weight", official.get("stem1.0.weight"))
    arguments = checkpoint["hyper_parameters"].get("net", {}).get("init_args", {})
    stride = 3 if arguments.get("adaptive_pool") else 4
    if stem is None or stem.shape[-1] != 4 or arguments.get("stem_stride", stride) != stride:
        kernel = "no" if stem is None else f"a {stem.shape[-1]}×{stem.shape[-1]}"
        raise CheckpointError(
            f"{source} has {kernel} stem of stride {arguments.get('stem_stride', stride)}: official VanillaNets have a"
            f" 4×4 one of stride {stride}, so that none could load it"
        )
    write_atomically({"model": official}, destination)
    print(f"{destination} holds the weights of {source} under their official names")
    activation_lambda = state.get("activation_lambda", torch.tensor(1.0)).item()
    if activation_lambda < 1:
        print(
            f"without their λ of {activation_lambda:g}: call change_act({activation_lambda:g}) on the official network"
        )


def _write_ours(official: State, said: dict[str, Any], source: Path, destination: Path) -> None:
    ours = from_official(official, source)
    activation_lambda, adaptive_pool = said.get("activation_lambda", 1.0), said.get("adaptive_pool", False)
    ours.setdefault("activation_lambda", torch.tensor(float(activation_lambda)))
    try:
        arguments = network_arguments(ours, adaptive_pool) | {"dropout": said.get("dropout", 0.0)}
        net = VanillaNet(**arguments)
        net.load_state_dict(ours)
    except (LookupError, RuntimeError, ValueError) as error:
        reason = " ".join(f"{error}".split())
        raise CheckpointError(f"{source} holds the weights of no whole VanillaNet: {shorten(reason, 200)}") from error
    normalisation = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "image_size": 224}
    write_atomically(classifier_checkpoint(net, arguments, **normalisation), destination)
    form = "merged" if arguments["reparameterized"] else f"with λ = {activation_lambda:g}"
    print(f"{destination} holds VanillaNet-{arguments['depth']} of width {arguments['width']}, {form}")


convert = {"vanillanet": vanillanet}


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


def _official_facts(file: dict[str, Any]) -> dict[str, Any]:
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


def _official_weights(file: dict[str, Any], source: Path, choice: Weights | None) -> State:
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


def _read(path: Path) -> dict[str, Any]:
    """The file as tensors and primitives; official ones also hold the arguments they were trained with."""
    try:
        with torch.serialization.safe_globals(_OFFICIAL_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} {what_is_wrong(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not weights by name")
    return content
