"""Networks whose layers and residual blocks follow one another, as chains of links, and their layers in groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import nn

from lit_models.interfaces import Link, identity
from lit_models.networks.residual import GatedBlock

Layers = Iterable[tuple[str, nn.Module]]
"""Names in the network, and modules in forward order, as ``named_children()`` gives them."""


def chain_links(layers: Layers, stage: int = 0) -> list[Link]:
    """The links of consecutive ``layers``; those of an ``nn.Sequential`` are taken one by one.

    Each residual block is a link, and so is each convolution or matrix product with all that follows it up to the next.
    One that keeps the shape can be deleted.

    Args:
        layers: Of which each gets the output of the one before.
        stage: That of the first; every change of the shape begins another.
    """
    chain: list[Link] = []
    for name, group in _groups(layers):
        first = group[0]
        if isinstance(first, GatedBlock):
            stage += bool(chain) and first.transition
            chain.append(first.link(name, stage))
        else:
            weights = next((layer for layer in group if isinstance(layer, nn.Conv2d | nn.Linear)), None)
            keeps_shape = weights is not None and _keeps_shape(weights)
            stage += bool(chain) and not keeps_shape
            shortcut = identity if keeps_shape else None
            chain.append(Link(name, stage, nn.Sequential(*group), shortcut, transition=not keeps_shape))
    return chain


def two_part_links(features: nn.Module, pool: nn.Module, classifier: nn.Module) -> list[Link]:
    """Links of a plain network of convolutions ``features``, ``avgpool`` and linear layers ``classifier``."""
    convolutions = chain_links([("features", features)])
    middle = Link("avgpool", convolutions[-1].stage + 1, nn.Sequential(pool, nn.Flatten(1)), transition=True)
    return [*convolutions, middle, *chain_links([("classifier", classifier)], stage=middle.stage + 1)]


def numbered_groups(layers: Layers, begin: tuple[type[nn.Module], ...]) -> dict[str, str]:
    """timm's ``group_matcher`` of consecutive ``layers``: a pattern of each group's parameters, in forward order.

    Args:
        layers: Of which each gets the output of the one before.
        begin: Classes of the layers with which a group begins.
    """
    groups: list[list[str]] = [[]]
    for name, layer in layers:
        if isinstance(layer, begin):
            groups.append([])
        groups[-1].append(re.escape(name))
    return {names[0]: rf"(?:{'|'.join(names)})\." for names in groups if names}


def _groups(layers: Layers) -> list[tuple[str, list[nn.Module]]]:
    """The layers of each link, and the name of the first."""
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, layer in _one_by_one(layers):
        begins = isinstance(layer, nn.Conv2d | nn.Linear | nn.MaxPool2d | GatedBlock)
        if begins or not groups or isinstance(groups[-1][1][0], GatedBlock):
            groups.append((name, []))
        groups[-1][1].append(layer)
    return groups


def _one_by_one(layers: Layers) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in layers:
        if type(layer) is nn.Sequential:
            yield from _one_by_one((f"{name}.{child}", module) for child, module in layer.named_children())
        else:
            yield name, layer


def _keeps_shape(layer: nn.Conv2d | nn.Linear) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.in_features == layer.out_features
    if layer.in_channels != layer.out_channels:
        return False
    if isinstance(layer.padding, str):
        return layer.padding == "same"
    geometry = zip(layer.stride, layer.padding, layer.dilation, layer.kernel_size, strict=True)
    return all(stride == 1 and 2 * padding == dilation * (kernel - 1) for stride, padding, dilation, kernel in geometry)
