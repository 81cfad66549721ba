"""Private names of other packages, all that this room uses; imported where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

SEEN_WITH = {"lightning": "2.6.6", "timm": "1.0.31", "torch": "2.14.1"}
OVERRIDDEN = {"GatedBlock": {"_load_from_state_dict"}}
"""Classes of this room, and what they share with a base class of another package."""


def built_from_settings() -> bool:
    """Whether Lightning's command line calls the constructor under way.

    Its hyperparameters are then the arguments as written, the network's among them, and no objects.
    """
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

    return bool(_given_hyperparameters.get())


@contextmanager
def described_by(hparams: dict[str, Any]) -> Iterator[None]:
    """Modules that are constructed in this context have the description ``hparams``, as under LightningCLI."""
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

    token = _given_hyperparameters.set(hparams)
    try:
        yield
    finally:
        _given_hyperparameters.reset(token)


def with_positions(net: Any, patches: Tensor) -> Tensor:
    """Embedded patches of a timm ``VisionTransformer`` as tokens (N, L, D): flat, with prefix and positions."""
    return net._pos_embed(patches)


def chosen_indices(count: int, indices: int | list[int] | None) -> list[int]:
    """Positions among ``count`` maps that timm understands by ``indices``: a number is that of the last ones."""
    from timm.models._features import feature_take_indices

    return list(feature_take_indices(count, indices)[0])
