"""Where a network looks: Grad-CAM (Selvaraju et al. 2017), for the attention maps of VanillaNet (section 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.interfaces import Backbone


def attention_maps(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM of the logits of ``targets`` in the last feature map, enlarged to the images: (N, H, W), at least 0.

    Args:
        net: in evaluation mode; see :func:`last_map_layer`.
        images: (N, C, H, W).
        targets: classes (N,).

    Raises:
        MisconfigurationException: without captum, and for a network without such a layer.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError as error:
        raise MisconfigurationException("Attention maps need captum: pip install 'fathom-depth[attention]'.") from error
    cam = LayerGradCam(net, last_map_layer(net, images))
    with torch.enable_grad():
        # Of images that ask for it there is a gradient in networks whose weights are frozen, too.
        maps = cam.attribute(images.detach().clone().requires_grad_(), targets, relu_attributions=True)
    return LayerAttribution.interpolate(maps.detach(), images.shape[-2:], "bilinear")[:, 0]


def last_map_layer(net: nn.Module, images: Tensor) -> nn.Module:
    """The module whose output is the last feature map, the one that the classifier gets.

    Args:
        net: with ``feature_maps``, as ours, or ``forward_features``, as timm's.
        images: (N, C, H, W), to be looked at on the way.

    Raises:
        MisconfigurationException: where no module makes it, or it is no map, as in a transformer.
    """
    outputs: list[tuple[nn.Module, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append((module, output)))
        for module in net.modules()
    ]
    try:
        with torch.no_grad():
            last = _last_map(net, images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    layers = [module for module, output in outputs if output is last]
    if not layers or last.ndim != 4:
        raise MisconfigurationException(
            f"{type(net).__name__} has no layer whose output is its last feature map, in which Grad-CAM looks: take a"
            " convolutional network of this project or of timm"
        )
    return layers[-1]


def _last_map(net: Any, images: Tensor) -> Any:
    if isinstance(net, Backbone):
        return net.feature_maps(images)[-1]
    return net.forward_features(images) if hasattr(net, "forward_features") else None


def half_of_attention(maps: Tensor) -> Tensor:
    """The least share of pixels that holds half of the attention (N, H, W): (N,), small where it is concentrated.

    NaN for a map of zeros.
    """
    ordered = maps.double().flatten(1).sort(1, descending=True).values
    total = ordered.sum(1, keepdim=True)
    # The last pixel may be needed in part: what is below a half, and how much of the next.
    before = ordered.cumsum(1)
    whole = (before < total / 2).sum(1, keepdim=True)
    missing = total / 2 - before.gather(1, whole) + ordered.gather(1, whole)
    return ((whole + missing / ordered.gather(1, whole)) / ordered.shape[1])[:, 0]
