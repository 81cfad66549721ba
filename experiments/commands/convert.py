"""Turn official VanillaNet weights into a checkpoint, or back."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from lit_models import CheckpointError, VanillaNet
from lit_models.checkpoints import checkpoint_file, classifier_checkpoint, read_checkpoint, write_atomically
from lit_models.tasks.official_vanillanet import (
    State,
    Weights,
    from_official,
    network_arguments,
    official_facts,
    official_weights,
    read_official,
    to_official,
)


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
        source: official training or deploy weights, or a run or a checkpoint of this project.
        destination: file to write. It must not exist.
        weights: those to take of an official file with both: model_ema, the averaged ones, which the authors evaluate,
            or model, the live ones.
        adaptive_pool: whether the official weights are of the ada-pool variant, where the file does not name its model.
        activation_lambda: λ of official training weights, where the file does not name its epoch (default: 1, as it is
            once annealing has ended).
    """
    if destination.exists():
        raise MisconfigurationException(f"{destination} exists: remove it or choose another destination")
    source = checkpoint_file(source)
    file = read_official(source)
    if "hyper_parameters" in file:
        _write_official(read_checkpoint(source), source, destination)
    else:
        said = official_facts(file)
        if adaptive_pool is not None:
            said["adaptive_pool"] = adaptive_pool
        if activation_lambda is not None:
            said["activation_lambda"] = activation_lambda
        _write_ours(official_weights(file, source, weights), said, source, destination)


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
