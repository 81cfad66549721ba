"""config.json and README.md: the folder as a repository of the Hugging Face hub, which timm reads, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from experiments.export.model_card import model_card
from experiments.export.subject import Subject
from experiments.export.weights import module_of
from experiments.export.weights import write as write_weights
from lit_models import TimmBackbone
from lit_models.networks.timm_registry import NETWORKS

FILES = ("config.json", "README.md")


def write(subject: Subject, folder: Path) -> None:
    """Write both, with the weights they are about."""
    name, arguments = _in_timm(subject)
    name = write_weights(subject, folder, name)
    geometry, channels = subject.trained.geometry, subject.images.shape[1]
    squash = geometry.crop_ratio is None
    config = {
        "architecture": name,
        "num_classes": len(subject.trained.class_names),
        "label_names": subject.trained.class_names,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [channels, geometry.image_size, geometry.image_size],
            "num_classes": len(subject.trained.class_names),
            "interpolation": geometry.interpolation,
            "crop_pct": 1.0 if squash else geometry.crop_ratio,
            "crop_mode": "squash" if squash else "center",
            "mean": subject.trained.mean,
            "std": subject.trained.std,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(subject, name), encoding="utf-8")


def read_hub(folder: Path) -> Callable[[Tensor], Tensor]:
    """The network as ``from_pretrained`` loads it."""
    with redirect_stdout(StringIO()):  # it says that the weights are local
        return module_of(folder).Network.from_pretrained(str(folder)).eval()


def read_timm(folder: Path) -> Callable[[Tensor], Tensor]:
    """The network as ``timm.create_model`` makes it."""
    module_of(folder)
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _in_timm(subject: Subject) -> tuple[str | None, dict[str, Any]]:
    """Name and arguments of the network in timm, as far as timm knows it once ``lit_models`` is imported."""
    given: Any = subject.trained.net
    if isinstance(given, TimmBackbone):
        net: Any = subject.net
        name = net.pretrained_cfg.get("architecture") or given.name.partition(".")[0]
        return name, {"in_chans": subject.images.shape[1], **given.model_args}
    if (arguments := _constructed(given)) is None:
        return None, {}
    if "reparameterized" in arguments:
        arguments["reparameterized"] = True
    for name, (family, settings) in NETWORKS.items():
        if type(given) in family.network.__mro__ and settings.items() <= arguments.items():
            own = {key: value for key, value in arguments.items() if key not in ("num_classes", "in_channels")}
            return name, {"in_chans": arguments["in_channels"], **own}
    return None, {}


def _constructed(net: nn.Module) -> dict[str, Any] | None:
    """All arguments of the constructor, if the network knows them as primitives."""
    given = getattr(net, "constructor_arguments", None)
    if given is None:
        return None
    defaults = {name: p.default for name, p in signature(type(net)).parameters.items() if p.default is not p.empty}
    arguments = defaults | given
    try:
        json.dumps(arguments)
    except TypeError:
        return None
    return arguments
