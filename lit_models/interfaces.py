"""What callbacks and analyses may ask of a network.

A network takes part in an algorithm by having the methods of its protocol, not by inheriting from anything.
Callbacks check the protocol in ``setup`` and refuse a network that does not have it.

``isinstance`` checks the methods alone: from Python 3.12 on it does not see the buffers of a module, which are members
for type checkers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import Parameter

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Every kind of batch normalisation; those of other libraries inherit from one of these."""

Rescale = Literal["eval", "train"]
"""Where a randomly dropped branch is corrected so that its expectation is right.

``"eval"`` multiplies it by its survival probability at evaluation (Huang et al. 2016, equation 5), and
``"train"`` divides it by that probability in training (timm, torchvision).
"""


class LogitsWithAux(NamedTuple):
    """What a network with auxiliary heads returns in training mode; in evaluation mode it returns logits alone."""

    logits: Tensor
    """(N, K)."""
    aux_logits: tuple[Tensor, ...]
    """(N, K), one per auxiliary head, in forward order."""


@runtime_checkable
class AnnealedActivations(Protocol):
    """A network whose non-linearities can be blended into the identity (VanillaNet, section 3.1).

    λ = 0 is the activation function, λ = 1 the identity.
    """

    if TYPE_CHECKING:
        activation_lambda: Tensor
        """λ, a persistent buffer of shape ``()`` with a value in [0, 1]."""

    def set_activation_lambda(self, value: float) -> None:
        """Set λ. Raises ``ValueError`` outside [0, 1]."""


@runtime_checkable
class Reparameterizable(Protocol):
    """A network that can be folded into a shallower one with the same output in evaluation mode."""

    def reparameterize(self) -> None:
        """Fold in place, in float64, with the running statistics of batch normalisation.

        A second call does nothing. Raises ``ValueError`` where the result would differ, as at λ ≠ 1.
        """


@runtime_checkable
class DeeplyTrained(AnnealedActivations, Protocol):
    """A network of pairs of convolutions joined by annealed activations, which can be merged before training ends.

    Its constructor takes ``deep_training``, and ``False`` builds the form without pairs.
    """

    if TYPE_CHECKING:
        deep_training: bool
        """Whether it has the pairs."""

    def merge_pairs(self) -> None:
        """Merge the pairs in place, and keep the batch normalisation after each: still a network to be trained.

        It computes what it did in evaluation mode. Parameters that are not of a pair stay as objects. Raises
        ``ValueError`` at λ ≠ 1.
        """


class Window(NamedTuple):
    """A share of a batch: consecutive rows that start anywhere and continue at row 0 after the last one.

    Rows of a shuffled batch are random images, so a window is a random sample that costs no gather unless it
    wraps. Because it may wrap, every row is in it with the same probability. ``start`` and ``share`` are
    fractions of the batch, so one window serves batches of any size.

    The number of rows is ⌊share·N + rounding⌋. With ``rounding`` uniform in [0, 1) its expectation is share·N, exactly,
    for every N; the default takes the nearest number.
    """

    start: float
    share: float
    rounding: float = 0.5

    def rows(self, batch_size: int) -> tuple[int, int]:
        """First row and number of rows, which may be none."""
        return int(self.start * batch_size), int(self.share * batch_size + self.rounding)


Gate = bool | Window | None
"""What a residual branch does with the batch.

``None``: no draw took place. The branch runs, scaled to its expectation where evaluation does that (see ``Rescale``):
a network that was trained with stochastic depth is trained further, at constant depth, as it is evaluated.
``True``: drawn to survive. The branch runs as in a training step of stochastic depth, in evaluation mode too.
``False``: drawn to be dropped. The branch does not run at all.
``Window``: the branch runs on these rows alone, or not at all where there are none.
"""


@runtime_checkable
class ResidualBlock(Protocol):
    """y = join(shortcut(x), branch(x)), where the branch can be gated.

    Only callbacks and analyses write ``gate``; it is not saved.
    """

    if TYPE_CHECKING:
        survival_prob: Tensor
        """p_l, a persistent buffer of shape ``()``."""
        rescale: Rescale
        gate: Gate

    def shortcut(self, x: Tensor) -> Tensor:
        """What reaches the sum without the branch."""

    def branch(self, x: Tensor) -> Tensor:
        """f(x), before the sum."""

    def branch_parameters(self) -> list[Parameter]:
        """The parameters that take no part in a step in which the branch does not run."""

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""


@runtime_checkable
class ResidualNetwork(Protocol):
    """A network with residual blocks."""

    def residual_blocks(self) -> dict[str, ResidualBlock]:
        """The blocks by module name, in forward order."""


@runtime_checkable
class Backbone(Protocol):
    """A network that hands out its feature maps, for detectors and segmenters.

    There is one map for each resolution, the last that the network computes at it, finest first. The last of all is
    what its classifier would get.
    """

    if TYPE_CHECKING:

        @property
        def feature_channels(self) -> tuple[int, ...]:
            """Channels of each map."""

        @property
        def feature_strides(self) -> tuple[int, ...]:
            """Pixels of the image, on a side, in one pixel of each map."""

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> maps (N, C_i, H / stride_i, W / stride_i), finest first."""

    def dilate(self, output_stride: int) -> None:
        """Turn strides beyond ``output_stride`` into dilation, in place; the maps stay as many.

        Raises ``NetworkError`` for a stride that no map has, and where the network can't be dilated.
        """


def identity(x: Tensor) -> Tensor:
    """x itself, not a copy."""
    return x


@dataclass(frozen=True)
class Link:
    """A part of a network that is a chain of such parts: the composition of all ``forward`` is the network.

    A residual link is activation(shortcut(x) + branch(x)). Nothing of a link writes into its argument, so that an
    activation may be kept and used again.
    """

    name: str
    """Of the module in the network."""
    stage: int
    """0 is the stem; links of one stage that keep the shape may be exchanged."""
    forward: Callable[[Tensor], Tensor]
    """Exactly the computation of the network; it follows the train or eval mode of the modules."""
    shortcut: Callable[[Tensor], Tensor] | None = None
    """S, the very function ``identity`` where it is that; ``None`` where the network needs the link, as it does its
    stem and head."""
    branch: Callable[[Tensor], Tensor] | None = None
    """f, scaled as in evaluation by p_l or layer scale. ``None`` beside a shortcut: a plain layer that keeps the
    shape, and no sum."""
    activation: Callable[[Tensor], Tensor] | None = None
    """What follows the sum, not in place; ``None`` where nothing does."""
    transition: bool = False
    """The shape changes."""

    @property
    def removable(self) -> bool:
        """Whether the network runs without it."""
        return self.shortcut is not None

    def without_branch(self, x: Tensor) -> Tensor:
        """What a deleted link leaves of x: activation(S(x)). Raises ``TypeError`` for one that can't be deleted."""
        if self.shortcut is None:
            raise TypeError(f"{self.name} can't be deleted: nothing leads around it")
        x = self.shortcut(x)
        return x if self.activation is None else self.activation(x)


@runtime_checkable
class LinkedNetwork(Protocol):
    """A network that can be taken apart."""

    def links(self) -> list[Link]:
        """From the stem to the head, on the network's own modules."""
