"""A network as a Python file of its own: the operations that torch.export found, and the tensors they take."""

from __future__ import annotations

import hashlib
from pprint import pformat
from types import ModuleType
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from lit_models.errors import NetworkError

_LARGEST_CONSTANT = 100_000

_TEMPLATE = '''\
"""A network as it was exported: float32 (N, C, H, W), normalised as preprocess.json says, to logits (N, K).

It needs torch, huggingface_hub and timm; its weights are in model.safetensors beside it.
"""
# ruff: noqa

{imports}
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

# Name: (whether it is a parameter, shape, dtype), as in model.safetensors.
TENSORS = {tensors}
# What the graph takes, in this order; then the images.
INPUTS = {inputs}
CONSTANTS = {constants}
NAME = {name!r}


class Network(nn.Module, PyTorchModelHubMixin):
    """``Network.from_pretrained(FOLDER)`` loads it with its weights."""

    def __init__(self):
        super().__init__()
        for name, (is_parameter, shape, dtype) in TENSORS.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            value = torch.empty(shape, dtype=getattr(torch, dtype))
            if is_parameter:
                module.register_parameter(leaf, nn.Parameter(value))
            else:
                module.register_buffer(leaf, value)

    def forward(self, images):
        values = {{**dict(self.named_parameters()), **dict(self.named_buffers())}}
        for name, (content, dtype) in CONSTANTS.items():
            values[name] = torch.tensor(content, dtype=getattr(torch, dtype), device=images.device)
        return graph(*(values[name] for name in INPUTS), images)[0]


{graph}

def register():
    """Let ``timm.create_model("local-dir:FOLDER", pretrained=True)`` know this network, unless timm does."""
    from timm.models import build_model_with_cfg, is_model, register_model

    if is_model(NAME):
        return

    def create(pretrained=False, **kwargs):
        return build_model_with_cfg(lambda **_: Network(), NAME, pretrained, **kwargs)

    create.__name__ = NAME
    register_model(create)


register()
'''


def network_code(net: nn.Module, program: ExportedProgram, name: str | None) -> tuple[str, str]:
    """The file, and the name under which timm knows the network in it.

    Args:
        net: the network.
        program: of it.
        name: its name in timm (default: one made of its class and operations).
    """
    code = program.graph_module.graph.python_code("self")
    graph = code.src.strip().replace("def forward(self, ", "def graph(", 1)
    if "self." in graph:
        raise NetworkError(f"the operations of {type(net).__name__} need modules of their own: export onnx or pt2")
    name = name or f"{type(net).__name__.lower()}_{hashlib.sha256(graph.encode()).hexdigest()[:8]}"
    parameters = dict(net.named_parameters())
    tensors = {
        key: (key in parameters, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in net.state_dict().items()
    }
    inputs, constants = [], {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        target: Any = spec.target
        inputs.append(target)
        if target not in tensors:
            value: Any = program.constants[target]
            if value.numel() > _LARGEST_CONSTANT:
                raise NetworkError(f"{type(net).__name__} holds a large constant {target}: export onnx or pt2")
            constants[target] = (value.tolist(), str(value.dtype).removeprefix("torch."))
    text = _TEMPLATE.format(
        imports=_imports(code.globals),
        tensors=pformat(tensors, width=110, sort_dicts=False),
        inputs=pformat(inputs, width=110),
        constants=repr(constants),
        name=name,
        graph=graph + "\n",
    )
    return text, name


def _imports(names: dict[str, Any]) -> str:
    lines = ["import torch", "from math import inf, nan", "from torch import device", "NoneType = type(None)"]
    for name, value in names.items():
        if isinstance(value, ModuleType) and name != "torch":
            lines.append(f"import {value.__name__} as {name}")
    return "\n".join(lines)
