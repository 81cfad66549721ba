"""A residual block whose branch can be skipped, or run on part of the batch.

One ``forward`` serves the plain ResNet, stochastic depth (Huang et al. 2016, equations 2 and 5) and a lesion. A network
made of such blocks returns :func:`gated_blocks` from its method ``residual_blocks``, which is all that stochastic depth
asks for, and collects their links in ``links`` (:func:`lit_models.networks.chain.chain_links`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.errors import check_choice
from lit_models.interfaces import Gate, Link, Rescale, Window, identity
from lit_models.networks.relu import relu


class GatedBlock(nn.Module, ABC):
    """y = ReLU(S(x) + f(x)), or S(x) + f(x) with pre-activation. A subclass writes ``branch``, which is f.

    A branch that does not run costs nothing: no forward, no backward, no update of its batch statistics.
    The sum overwrites the result of the branch, so that must be a new tensor which its own backward pass does
    not need: the output of a convolution or of batch normalisation.

    Args:
        downsample: S where it is not the identity. The name is the one torchvision and timm give it.
        preactivation: No ReLU follows the sum.
        rescale: Where the expectation of a randomly dropped branch is corrected.
        transition: Whether the shape changes; assumed of every S that is not the identity.
    """

    expansion = 1
    """Output channels in multiples of the width, in blocks that have one."""
    survival_prob: Tensor

    def __init__(
        self,
        downsample: nn.Module | None = None,
        preactivation: bool = False,
        rescale: Rescale = "eval",
        transition: bool | None = None,
    ) -> None:
        super().__init__()
        check_choice("rescale", rescale, Rescale)
        self.transition = downsample is not None if transition is None else transition
        self.downsample = downsample
        self.preactivation = preactivation
        self.rescale = rescale
        self.gate: Gate = None
        self.varying_depth = False
        """Whether the survival probability may be other than 1, known without synchronising with the device."""
        self.register_buffer("survival_prob", torch.ones(()))

    def shortcut(self, x: Tensor) -> Tensor:
        """S(x): (N, C, H, W) -> (N, C', H', W')."""
        return x if self.downsample is None else self.downsample(x)

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """f(x): (N, C, H, W) -> (N, C', H', W')."""

    def branch_parameters(self) -> list[nn.Parameter]:
        """All parameters but those of the shortcut."""
        return [p for name, p in self.named_parameters() if not name.startswith("downsample.")]

    def expected_branch(self, x: Tensor) -> Tensor:
        """f(x) as it is added without a draw: p_l·f(x) where evaluation corrects the expectation (equation 5)."""
        branch = self.branch(x)
        # Survival probabilities stay on the device: .item() here would force a device sync.
        return branch * self.survival_prob.type_as(branch) if self.rescale == "eval" else branch

    def link(self, name: str, stage: int) -> Link:
        """The block as a part of a network that is taken apart.

        Args:
            name: Of the block in the network.
            stage: Number of its stage, see :class:`~lit_models.interfaces.Link`.
        """
        return Link(
            name,
            stage,
            forward=self,
            shortcut=identity if self.downsample is None else self.shortcut,
            branch=self.expected_branch,
            activation=None if self.preactivation else torch.relu,
            transition=self.transition,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        if self.gate is not None:
            self.varying_depth = True
        if self.gate is False:
            return self._skip(x)
        if isinstance(self.gate, Window):
            return self._run_on_window(x, self.gate)
        shortcut = self.shortcut(x)
        # At constant depth training saves the multiplication by 1, forward and backward.
        expected = self.gate is None and (self.varying_depth or not self.training)
        branch = self.expected_branch(x) if expected else self.branch(x)
        if self.gate is True and self.rescale == "train":
            branch = branch / self.survival_prob.type_as(branch)
        return self._activate(branch.add_(shortcut))

    def _activate(self, y: Tensor) -> Tensor:
        return y if self.preactivation else relu(y)

    def _skip(self, x: Tensor) -> Tensor:
        # With post-activation x comes out of a ReLU, and a second one would not change it.
        return x if self.downsample is None else self._activate(self.downsample(x))

    def _run_on_window(self, x: Tensor, window: Window) -> Tensor:
        start, count = window.rows(x.shape[0])
        if count == 0:
            return self._skip(x)
        x, survivors = (x, x) if count == x.shape[0] else _Survivors.apply(x, start, count)
        branch = self.branch(survivors)
        if self.rescale == "train":
            branch = branch / window.share  # not N/count, which would be wrong on average: count may be 0
        shortcut = self.shortcut(x)
        return self._activate(branch.add_(shortcut) if survivors is x else _AddRows.apply(shortcut, branch, start))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights of a library's network know no survival probability: they were trained at constant depth.
        prob = state_dict.setdefault(f"{prefix}survival_prob", torch.ones(()))
        self.varying_depth = prob.is_meta or bool(prob != 1)
        super()._load_from_state_dict(state_dict, prefix, *args)


def gated_blocks(net: nn.Module) -> dict[str, GatedBlock]:
    """The blocks of ``net`` by module name, in the order in which they were added to it."""
    return {name: module for name, module in net.named_modules() if isinstance(module, GatedBlock)}


def _rows(x: Tensor, start: int, count: int) -> Tensor:
    """``count`` rows of x from ``start`` on, continued at row 0. A view unless they wrap."""
    overhang = start + count - x.shape[0]
    if overhang <= 0:
        return x[start : start + count]
    return torch.cat([x[start:], x[:overhang]])


def _add_to_rows(x: Tensor, addend: Tensor, start: int) -> None:
    """Add to the rows that ``_rows`` returns, in place."""
    before_end = x.shape[0] - start
    x[start : start + addend.shape[0]] += addend[:before_end]
    if addend.shape[0] > before_end:
        x[: addend.shape[0] - before_end] += addend[before_end:]


class _Survivors(torch.autograd.Function):
    """x -> (x, rows of x).

    The backward of a plain slice fills a tensor of the whole batch with zeros and loses channels_last. This
    one adds the rows to the gradient that comes over the shortcut, and keeps its layout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
        ctx.start = start
        return x.view_as(x), _rows(x, start, count)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, grad_rows: Tensor) -> tuple[Tensor, None, None]:
        grad_x = grad_x.clone()
        _add_to_rows(grad_x, grad_rows, ctx.start)
        return grad_x, None, None


class _AddRows(torch.autograd.Function):
    """(x, y) -> x with y added to the rows from ``start`` on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, start: int) -> Tensor:
        ctx.start, ctx.count = start, y.shape[0]
        x = x.clone()
        _add_to_rows(x, y, start)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, _rows(grad, ctx.start, ctx.count), None
