"""A network in each form in which it can be run, ready to be timed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from experiments.bench.official_form import official_form
from experiments.errors import UsageError
from experiments.internals import compile_ahead, load_compiled, weights_packed_once
from lit_models import VanillaNet

Form = Literal["eager", "compiled", "packed", "aoti", "onnx"]
Layout = Literal["contiguous", "channels_last"]
Precision = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Run = Callable[[], object]
"""A forward pass."""


@dataclass(frozen=True)
class Setting:
    """What all networks of a table have in common."""

    batch: int
    precision: Precision
    image_size: int
    width: int
    threads: int
    device: torch.device

    def images(self, layout: Layout) -> Tensor:
        """(N, 3, S, S)."""
        shape = (self.batch, 3, self.image_size, self.image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return _laid_out(images.to(self.device, DTYPES[self.precision]), layout)

    def network(self, name: str) -> nn.Module:
        """With weights of a seed, in evaluation mode; VanillaNet merged."""
        torch.manual_seed(0)
        net: nn.Module
        if match := re.fullmatch(r"vanillanet(\d+)", name):
            net = VanillaNet(1000, depth=int(match[1]), width=self.width, reparameterized=True)
        elif match := re.fullmatch(r"official vanillanet(\d+)", name):
            net = official_form(int(match[1]), width=self.width)
        else:
            net = timm.create_model(name)
        return net.to(self.device, DTYPES[self.precision]).eval().requires_grad_(False)


def check_packages() -> None:
    """Raises ``UsageError`` where ONNX Runtime, or what writes its files, is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is missing: pip install 'fathom-depth[export]', or leave onnx out of --forms"
        ) from error


def prepare(setting: Setting, name: str, form: Form, layout: Layout) -> Run:
    """The network in that form; compiling takes a minute."""
    if form == "onnx":
        return _onnx(setting, name)
    net, images = _laid_out(setting.network(name), layout), setting.images(layout)
    if form == "eager":
        return lambda: net(images)
    if form == "aoti":
        return _aoti(net, images)
    if form == "packed":
        with weights_packed_once():
            return _compiled(net, images)
    return _compiled(net, images)


def _compiled(net: nn.Module, images: Tensor) -> Run:
    fast: Any = torch.compile(net, dynamic=False)
    fast(images)
    return lambda: fast(images)


def _aoti(net: nn.Module, images: Tensor) -> Run:
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad(), weights_packed_once():
        path = Path(folder) / "net.pt2"
        compile_ahead(torch.export.export(net, (images.clone(),), strict=False), path)
        fast = load_compiled(path)
    return lambda: fast(images)


def _onnx(setting: Setting, name: str) -> Run:
    import onnxruntime

    images = setting.images("contiguous")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(setting.network(name), (images.clone(),), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, given)


def _laid_out(what: Any, layout: Layout) -> Any:
    return what.to(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
