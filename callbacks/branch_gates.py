"""Gates of residual blocks, for a callback that sets them anew in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from callbacks.requirements import network_with
from lit_models.cost import count_branch_macs
from lit_models.interfaces import Gate, ResidualBlock, ResidualNetwork, Window


class BranchGates:
    """The residual blocks of a network, in forward order, and their gates. There are none until ``attach``."""

    def __init__(self) -> None:
        self.net: Any = None
        self.blocks: list[Any] = []
        self._parameters: list[list[nn.Parameter]] = []
        self._hooks: list[RemovableHandle] = []

    def attach(self, trainer: L.Trainer, pl_module: L.LightningModule, callback: L.Callback) -> None:
        """Find the blocks of the network that ``callback`` is to gate.

        On several devices a branch that is shut will hand over zero gradients, so that no device waits for them;
        ``find_unused_parameters`` is not needed.

        Raises:
            MisconfigurationException: for a network without residual blocks, and where another callback gates them too.
        """
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is not callback and gates_branches(other):
                raise MisconfigurationException(
                    f"{type(callback).__name__} and {type(other).__name__} would both set the gates of the residual "
                    "blocks, and one undo the draws of the other: remove one of the two"
                )
        self.net = network_with(ResidualNetwork, pl_module, callback)
        self.blocks = list(self.net.residual_blocks().values())
        if not self.blocks:
            raise MisconfigurationException(
                f"{type(callback).__name__} needs residual blocks, and this {type(self.net).__name__} is a plain"
                " network: remove the callback or give the network its shortcuts"
            )
        self._parameters = [block.branch_parameters() for block in self.blocks]
        if trainer.world_size > 1:
            for block, parameters in zip(self.blocks, self._parameters, strict=True):
                self._hooks.append(block.register_forward_hook(_hand_over_zero_gradients(parameters)))

    def set(self, gates: Sequence[Gate]) -> None:
        """Set the gate of each block."""
        for block, gate in zip(self.blocks, gates, strict=True):
            block.gate = gate

    def open(self) -> None:
        """Reset every gate to ``None``, the default."""
        self.set([None] * len(self.blocks))

    def drop_gradients(self) -> None:
        """Remove the gradients of shut branches: zeros would let momentum and weight decay move their weights."""
        for block, parameters in zip(self.blocks, self._parameters, strict=True):
            if block.gate is False:
                for parameter in parameters:
                    parameter.grad = None

    def zero_gradients(self) -> None:
        """Give branches that did not run zero gradients, so that momentum and weight decay move their weights."""
        for parameter in (parameter for parameters in self._parameters for parameter in parameters):
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def skipped_macs(self, probs: Sequence[float], image_shape: tuple[int, int, int]) -> float:
        """Expected multiply-adds of the branches that are shut, where each is open with its probability.

        Args:
            probs: of each block.
            image_shape: (C, H, W).
        """
        macs = count_branch_macs(self.net, image_shape)
        return sum((1 - prob) * branch for prob, branch in zip(probs, macs, strict=True))

    def detach(self) -> None:
        """Remove what ``attach`` hung onto the blocks."""
        while self._hooks:
            self._hooks.pop().remove()


def gates_branches(callback: L.Callback) -> bool:
    """Whether ``callback`` sets gates."""
    return any(isinstance(value, BranchGates) for value in vars(callback).values())


class _ZeroGradients(torch.autograd.Function):
    """The identity in x, with a zero gradient for each parameter, which DDP waits for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(torch.zeros_like(parameter) for parameter in ctx.parameters)


def _hand_over_zero_gradients(parameters: list[nn.Parameter]) -> Any:
    """A forward hook for a block whose branch has ``parameters``."""

    def hook(block: ResidualBlock, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        gate, batch_size = block.gate, len(inputs[0])
        shut = gate.rows(batch_size)[1] == 0 if isinstance(gate, Window) else gate is False
        return _ZeroGradients.apply(output, *parameters) if shut else None

    return hook
