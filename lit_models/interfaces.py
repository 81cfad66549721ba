"""What callbacks and analyses may ask of a network.

A network takes part in an algorithm by having the methods of its protocol, not by inheriting from anything.
Callbacks check the protocol in ``setup`` and refuse a network that does not have it.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

Rescale = Literal["eval", "train"]
"""Where a randomly dropped branch is corrected so that its expectation is right.

``"eval"`` multiplies it by its survival probability at evaluation (Huang et al. 2016, equation 5), ``"train"``
divides it by that probability in training (timm, torchvision).
"""


@runtime_checkable
class AnnealedActivations(Protocol):
    """A network whose non-linearities can be blended into the identity (VanillaNet, section 3.1).

    λ = 0 is the activation function, λ = 1 the identity.
    """

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
class ResidualBlock(Protocol):
    """y = join(shortcut(x), branch(x)), where the branch can be gated.

    ``gate`` is not saved: ``None`` runs the branch on the whole batch, ``False`` does not run it at all, and a
    slice or a tensor of row indices runs it on these rows of the batch alone. Only callbacks and analyses write it.
    """

    survival_prob: Tensor
    """p_l, a persistent buffer of shape ``()``."""
    rescale: Rescale
    gate: Literal[False] | slice | Tensor | None

    def shortcut(self, x: Tensor) -> Tensor:
        """What reaches the sum without the branch."""

    def branch(self, x: Tensor) -> Tensor:
        """f(x), before the sum."""

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""


@runtime_checkable
class ResidualNetwork(Protocol):
    """A network with residual blocks."""

    def residual_blocks(self) -> dict[str, ResidualBlock]:
        """The blocks by module name, in forward order."""
