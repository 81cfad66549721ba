"""timm's way to number the layers of a network, which ``layer_decay`` follows."""

from __future__ import annotations

import math
from collections.abc import Callable

from timm.models import group_parameters
from torch import nn

from lit_models.errors import NetworkError


def layers_of(net: nn.Module, coarse: bool = False) -> dict[str, int]:
    """The number of the layer that each parameter of ``net`` belongs to, by name.

    Args:
        net: with a method ``group_matcher``.
        coarse: number groups of layers, such as stages.

    Raises:
        NetworkError: if it has none.
    """
    if not hasattr(net, "group_matcher"):
        raise NetworkError(
            f"layer_decay needs a network that numbers its layers in a method group_matcher, as timm's and ours do, and"
            f" {type(net).__name__} has none: set layer_decay to null"
        )
    return group_parameters(net, net.group_matcher(coarse=coarse), reverse=True)  # type: ignore[operator]


def layers_below(prefix: str, net: nn.Module, coarse: bool) -> Callable[[str], float]:
    """``group_matcher`` of a network in which ``net`` is ``prefix``: its layers, and then one of everything else.

    Raises:
        NetworkError: see :func:`layers_of`.
    """
    numbers = {f"{prefix}.{name}": number for name, number in layers_of(net, coarse).items()}
    return lambda name: numbers.get(name, math.inf)
