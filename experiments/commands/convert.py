"""Turn official VanillaNet weights into a checkpoint, or back."""

from __future__ import annotations

import argparse
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from lit_models import CheckpointError, VanillaNet
from lit_models.checkpoints import classifier_checkpoint, write_atomically

State = dict[str, Tensor]


def vanillanet(
    source: Path, destination: Path, adaptive_pool: bool = False, ema: bool = False, activation_lambda: float = 1.0
) -> None:
    """Turn official VanillaNet weights into a checkpoint, or a checkpoint into weights under official names.

    Which of the two is seen from the file; depth, width, classes and n are read off the weights.

    Args:
        source: official training or deploy weights, or a checkpoint of this project.
        destination: file to write. It must not exist.
        adaptive_pool: the official weights are of the ada-pool variant, which their shapes don't tell.
        ema: take the averaged weights of the official file instead of the live ones.
        activation_lambda: λ of official training weights, which don't hold it; 1 once annealing has ended.
    """
    if destination.exists():
        raise MisconfigurationException(f"{destination} exists: remove it or choose another destination")
    checkpoint = _read(source)
    if "hyper_parameters" in checkpoint:
        ours = {name[4:]: value for name, value in checkpoint["state_dict"].items() if name.startswith("net.")}
        write_atomically({"model": to_official(ours, source)}, destination)
        print(f"{destination} holds the weights of {source} under their official names")
        return
    ours = from_official(_official_weights(checkpoint, source, ema), source)
    ours.setdefault("activation_lambda", torch.tensor(activation_lambda))
    arguments = network_arguments(ours, adaptive_pool)
    net = VanillaNet(**arguments)
    try:
        net.load_state_dict(ours)
    except RuntimeError as error:
        raise CheckpointError(f"{source} is no VanillaNet-{arguments['depth']}: {error}") from error
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


def _official_weights(checkpoint: dict[str, Any], source: Path, ema: bool) -> State:
    """The weights, which lie under ``model``, ``model_ema`` or at the top."""
    if ema and "model_ema" not in checkpoint:
        raise CheckpointError(f"{source} holds no averaged weights (model_ema): leave out --ema")
    weights = checkpoint["model_ema"] if ema else checkpoint.get("model", checkpoint.get("model_ema", checkpoint))
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    if not any(name.startswith(("stem.0.", "stem1.0.")) for name in weights):
        raise CheckpointError(f"{source} is neither official VanillaNet weights nor a checkpoint of this project")
    return weights


def _read(path: Path) -> dict[str, Any]:
    """The file as tensors and primitives; official ones also hold the arguments they were trained with."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} can't be read as tensors and primitives alone ({reason})") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} holds a {type(checkpoint).__name__}, not weights by name")
    return checkpoint
