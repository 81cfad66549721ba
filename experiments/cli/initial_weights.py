"""Weights that a network starts from: they bring the network of a backbone, and the normalisation that they expect."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from experiments.cli.trusted_names import refusal
from lit_models.checkpoints import checkpoint_file, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.tasks.official_vanillanet import official_state

STARTS_FROM = {
    "model.init_args.net.init_args.pretrained": False,
    "model.init_args.net.init_args.backbone.init_args.pretrained": False,
    "model.init_args.weights": None,
}
"""Settings that say which weights a network starts from, and their values where it starts from none."""
_BACKBONES = ("--model.net.backbone", "--model.init_args.net.init_args.backbone")


def with_backbones(words: Iterable[str]) -> list[str]:
    """The ``words`` of a command line, where a backbone may be a run or a checkpoint: its network and its weights.

    Raises:
        CheckpointError: For a checkpoint that does not describe its network, or names a class of a package that the
            user did not name.
    """
    result: list[str] = []
    words = iter(words)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in _BACKBONES:
            value = value if equals else next(words, "")
            if Path(value).expanduser().exists():
                result += _backbone(flag, Path(value).expanduser())
                continue
            result += [word] if equals else [word, value]
        else:
            result.append(word)
    return result


def _backbone(flag: str, path: Path) -> list[str]:
    file = checkpoint_file(path)
    hparams = read_checkpoint(file).get("hyper_parameters", {})
    if reason := refusal(file, hparams):
        raise CheckpointError(reason)
    net = hparams.get("net")
    if not net:
        raise CheckpointError(f"{file} does not describe its network: give its class as {flag}, and --model.weights")
    return [flag, as_flag(net), "--model.weights", str(path)]


def as_flag(net: dict[str, Any]) -> str:
    """A network's description as a value of the command line, where null would be taken for the name of a class."""
    given = {name: value for name, value in net.get("init_args", {}).items() if value is not None}
    return json.dumps({**net, "init_args": given})


def normalise_as_weights(config: Any) -> None:
    """Let images be normalised as the weights expect that the model of a parsed ``config`` starts from.

    A mean or deviation that the user gave stays.
    """
    mean_std = _expected(config)
    data = config.get("data.init_args")
    if mean_std is None or data is None or "mean" not in data or "std" not in data:
        return
    if data.mean is None and data.std is None:
        # Who takes them has photos in colour: the filters of grey images are repeated for three channels.
        data.mean, data.std = (values * 3 if len(values) == 1 else values for values in mean_std)
        numbers = [", ".join(f"{value:.3f}" for value in values) for values in (data.mean, data.std)]
        rank_zero_info(f"Images are normalised as the weights expect: mean {numbers[0]}, std {numbers[1]}.")


def _expected(config: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the images that the weights were trained on, where they are known."""
    weights = config.get("model.init_args.weights")
    if weights and checkpoint_file(weights).suffix == ".ckpt":
        hparams = read_checkpoint(checkpoint_file(weights)).get("hyper_parameters", {})
        if hparams.get("mean") and hparams.get("std"):
            return tuple(hparams["mean"]), tuple(hparams["std"])
    elif weights and official_state(checkpoint_file(weights)):
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    for setting in ("model.init_args.net", "model.init_args.net.init_args.backbone"):
        net = config.get(setting)
        if net is not None and net.get("init_args.pretrained") and "name" in net.init_args:
            from timm.models import get_pretrained_cfg

            if (known := get_pretrained_cfg(net.init_args.name)) is not None:
                return tuple(known.mean), tuple(known.std)
    return None
