"""Trained networks that come with Fathom, ``pretrained:NAME``: the few that the papers' pages are about.

Each is a file in a folder ``pretrained`` of its paper, with a card of the same name beside it. Matrices and kernels are
stored in float16, vectors, among them all of batch normalisation, in float32. On the command line ``pretrained:NAME``
is a run like any other: a directory with a configuration and a checkpoint, ``runs/pretrained/NAME``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

import datamodules
import lit_models
from experiments.cli.messages import did_you_mean
from lit_models.checkpoints import classifier_checkpoint, write_atomically
from lit_models.files import atomic
from lit_models.settings import as_setting

EXPERIMENTS = Path(__file__).parents[1]


def pretrained_files() -> dict[str, Path]:
    """The file of each name."""
    return {path.stem: path for path in sorted(EXPERIMENTS.glob("*/pretrained/*.safetensors"))}


def pretrained_network(name: str) -> nn.Module:
    """The network with its weights, in float32.

    Raises:
        MisconfigurationException: If there is none of this name.
    """
    with _opened(name) as file:
        about = file.metadata()
        net: nn.Module = getattr(lit_models, about["network"])(**json.loads(about["arguments"]))
        net.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    return net


def with_pretrained(word: str) -> str:
    """A word of a command line with the run directory in the place of ``pretrained:NAME``."""
    return re.sub(r"(?<![^=\[, ])pretrained:([^\], ]*)", lambda found: str(pretrained_run(found[1])), word)


def pretrained_run(name: str) -> Path:
    """The directory of its run, in which the network is unpacked.

    Raises:
        MisconfigurationException: If there is no network of this name.
        OSError: If it can't be written.
    """
    with _opened(name) as file:
        about = file.metadata()
    run, data = Path("runs") / "pretrained" / name, getattr(datamodules, about["data"])()
    facts = {fact: getattr(data, fact) for fact in ("mean", "std", "image_size", "class_names")}
    checkpoint = classifier_checkpoint(pretrained_network(name), json.loads(about["arguments"]), **facts)
    write_atomically(checkpoint, run / "checkpoints" / "last.ckpt")
    with atomic(run / "config.yaml") as config:
        yaml.safe_dump({"name": name, "data": {"class_path": f"datamodules.{about['data']}"}}, config)
    return run


def facts_of(path: Path) -> dict[str, str]:
    """Rows of the card of the network that lies at ``path``; none where nothing does."""
    if not path.exists():
        return {}
    with safe_open(path, framework="pt") as file:
        facts: dict[str, str] = json.loads(file.metadata()["facts"])
    return facts


def keep_network(net: nn.Module, path: Path, data: str, facts: dict[str, str]) -> None:
    """Write a network and its card.

    Args:
        net: Of a class in ``lit_models`` that keeps its arguments.
        path: Of the file, ``NAME.safetensors``.
        data: Class in ``datamodules`` whose test images it is evaluated on by default.
        facts: Rows of the card.
    """
    setting = as_setting(net)
    metadata = {
        "network": setting["class_path"].rpartition(".")[2],
        "arguments": json.dumps(setting["init_args"]),
        "data": data,
        "facts": json.dumps(facts),
    }
    state = {key: _compact(value).contiguous() for key, value in net.state_dict().items()}
    with atomic(path, "wb") as file:
        file.write(save(state, metadata))
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    card = f"# {path.stem}\n\n| | |\n| --- | --- |\n{rows}\n`fathom lesion pretrained:{path.stem}` takes it apart.\n"
    with atomic(path.with_suffix(".md")) as file:
        file.write(card)


def _compact(value: torch.Tensor) -> torch.Tensor:
    return value.detach().half() if value.is_floating_point() and value.ndim > 1 else value.detach().clone()


def _opened(name: str) -> Any:
    files = pretrained_files()
    if name not in files:
        raise MisconfigurationException(f"there is no network pretrained:{name}{did_you_mean(name, list(files))}")
    return safe_open(files[name], framework="pt")
