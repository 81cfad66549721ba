"""model.safetensors, and network.py, in which the weights find their places."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.export.network_code import network_code
from experiments.export.subject import Subject

FILES = ("model.safetensors", "network.py")


def write(subject: Subject, folder: Path, name: str | None = None) -> str:
    """Write both, and return the name under which timm knows the network."""
    state = {key: value.detach().clone().contiguous() for key, value in subject.net.state_dict().items()}
    metadata = {"format": "pt", "preprocess": json.dumps(subject.description, ensure_ascii=False)}
    save_file(state, folder / "model.safetensors", metadata)
    code, name = network_code(subject.net, subject.program, name)
    (folder / "network.py").write_text(code, encoding="utf-8")
    return name


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """The network, from both files alone."""
    net = module_of(folder).Network()
    net.load_state_dict(load_file(folder / "model.safetensors"))
    return net.eval()


def module_of(folder: Path) -> Any:
    """``network.py`` of the folder as a module."""
    name = f"exported_network_{abs(hash(folder))}"
    spec = spec_from_file_location(name, folder / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
