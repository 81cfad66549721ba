"""Training steps through ``torch.compile``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from types import MethodType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from callbacks.branch_gates import gates_branches
from callbacks.cuda_graphs import graphed
from callbacks.stochastic_depth import StochasticDepth
from lit_models.interfaces import ResidualNetwork

Function = Callable[..., Any]


class Compile(L.Callback):
    """Compiles the training passes of a network, in place: keys of checkpoints stay as they are.

    Compiled is the network as a whole, or, where another callback gates its residual blocks, each of their branches:
    gates stay outside, and blocks of one shape share code. Evaluation runs as it is written, so what is validated,
    averaged, merged or taken apart gives the numbers of a network that was never compiled.

    A step of ResNet-20 with 128 images in bfloat16 took 0.80 of the time on one thread of a CPU. Branches alone took
    0.98, and stages compiled one by one 1.12: on a CPU it pays where nothing is gated.

    The first step takes half a minute or more. Code is generated for each size of batch, so give the data module
    ``equal_batches``; then what a run computes does not depend on where it was resumed. On a CPU the generated code is
    C++, for which a compiler has to be installed. A step rounds in other places than an uncompiled one, so weights are
    not bit-equal to those of a run without the callback.

    Args:
        backend: of ``torch.compile``; ``aot_eager`` generates no code, which is for finding errors.
        graphs: capture each region as a CUDA graph and replay it, which removes the time of launching its kernels. A
            skipped block is a replay that is not made. One GPU alone. No GPU has run this yet.

    Raises:
        MisconfigurationException: in ``setup``, without a C++ compiler on a CPU, for ``graphs`` without CUDA or on
            several devices, and with stochastic depth by ``sample``, whose branches run on another number of images
            in each step.
    """

    def __init__(self, backend: str = "inductor", graphs: bool = False) -> None:
        self.backend = backend
        self.graphs = graphs
        self._replaced: list[tuple[nn.Module, str]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._check(trainer)
        torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, 64)  # regions of one class
        gated = any(map(gates_branches, trainer.callbacks))  # type: ignore[attr-defined]
        compiled: dict[Function, Function] = {}
        for module, name in regions(getattr(pl_module, "net", pl_module), gated):
            written = getattr(type(module), name)
            if written not in compiled:
                # Static, as what is generated for varying sizes depends on which of them came first.
                compiled[written] = torch.compile(written, backend=self.backend, dynamic=False)
            fast = graphed(module, compiled[written]) if self.graphs else compiled[written]
            setattr(module, name, MethodType(in_training(fast, written), module))
            self._replaced.append((module, name))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, *_: Any) -> None:
        self._restore()

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        """What ``fathom explain`` says of it."""
        captured = ", captured as CUDA graphs" if self.graphs else ""
        what = "the branches" if any(name == "branch" for _, name in self._replaced) else "the network"
        return {"compilation": f"{what}, by {self.backend}{captured}"}

    def _restore(self) -> None:
        while self._replaced:
            delattr(*self._replaced.pop())

    def _check(self, trainer: L.Trainer) -> None:
        device = trainer.strategy.root_device.type
        compiler = os.environ.get("CXX", "g++")
        if device == "cpu" and self.backend == "inductor" and shutil.which(compiler) is None:
            raise MisconfigurationException(
                f"Compile needs a C++ compiler, and there is no {compiler}: install one (apt install g++), name yours"
                " in CXX, or remove the callback"
            )
        if self.graphs and (device != "cuda" or trainer.world_size > 1):
            where = f"{trainer.world_size} devices" if device == "cuda" else device
            raise MisconfigurationException(
                f"Compile(graphs=True) captures CUDA graphs on one GPU, and this fit runs on {where}: set graphs to"
                " false"
            )
        if self.graphs and trainer.accumulate_grad_batches > 1:
            raise MisconfigurationException(
                "Compile(graphs=True) overwrites a gradient in each replay, so that none can be accumulated: set"
                " trainer.accumulate_grad_batches to 1, or graphs to false"
            )
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(other, StochasticDepth) and other.mode == "sample" for other in callbacks):
            raise MisconfigurationException(
                "Compile generates code for one number of images, and StochasticDepth(mode='sample') runs a branch on"
                " another number in each step: set its mode to batch, or remove Compile"
            )
        if not getattr(trainer.datamodule, "equal_batches", True):  # type: ignore[attr-defined]
            rank_zero_warn("Batches of two sizes are compiled twice: set data.equal_batches to true.")


def regions(net: nn.Module, gated: bool) -> list[tuple[nn.Module, str]]:
    """What is compiled of ``net``: modules, and the names of their methods. ``gated``: whether branches are skipped."""
    if gated and isinstance(net, ResidualNetwork):
        blocks: Any = net.residual_blocks().values()
        return [(block, "branch") for block in blocks]
    return [(net, "forward")]


def in_training(fast: Function, written: Function) -> Function:
    """A method that is ``fast`` for a module in training mode, and otherwise ``written``."""

    def method(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (fast if module.training else written)(module, *args, **kwargs)

    return method
