"""Networks without shortcuts as chains of links."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lit_models.interfaces import Link, identity


def plain_links(layers: Iterable[tuple[str, nn.Module]], stage: int) -> list[Link]:
    """Links of a network without shortcuts: a convolution or matrix product and all that follows it up to the next.

    One that keeps the shape can be deleted. ``stage`` is that of the first; every change of the shape begins another.
    """
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, layer in layers:
        if not groups or isinstance(layer, nn.Conv2d | nn.Linear | nn.MaxPool2d):
            groups.append((name, []))
        groups[-1][1].append(layer)
    chain: list[Link] = []
    for name, group in groups:
        weights = next((layer for layer in group if isinstance(layer, nn.Conv2d | nn.Linear)), None)
        keeps_shape = weights is not None and _keeps_shape(weights)
        stage += bool(chain) and not keeps_shape
        shortcut = identity if keeps_shape else None
        chain.append(Link(name, stage, nn.Sequential(*group), shortcut, transition=not keeps_shape))
    return chain


def two_part_links(features: nn.Module, pool: nn.Module, classifier: nn.Module) -> list[Link]:
    """Links of a plain network of convolutions ``features``, ``avgpool`` and linear layers ``classifier``."""
    convolutions = plain_links(((f"features.{name}", layer) for name, layer in features.named_children()), stage=0)
    middle = Link("avgpool", convolutions[-1].stage + 1, nn.Sequential(pool, nn.Flatten(1)), transition=True)
    layers = ((f"classifier.{name}", layer) for name, layer in classifier.named_children())
    return [*convolutions, middle, *plain_links(layers, stage=middle.stage + 1)]


def _keeps_shape(layer: nn.Conv2d | nn.Linear) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.in_features == layer.out_features
    if layer.in_channels != layer.out_channels:
        return False
    if isinstance(layer.padding, str):
        return layer.padding == "same"
    geometry = zip(layer.stride, layer.padding, layer.dilation, layer.kernel_size, strict=True)
    return all(stride == 1 and 2 * padding == dilation * (kernel - 1) for stride, padding, dilation, kernel in geometry)
