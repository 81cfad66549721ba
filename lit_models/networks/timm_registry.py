"""Our networks in timm's registry: after ``import lit_models``, ``timm.create_model("vanillanet_6")`` builds one.

They are subclasses of those of this package, so states fit both ways, and follow timm's conventions (``num_classes``,
``in_chans``, ``drop_rate``, ``drop_path_rate``, ``global_pool``, ``features_only``, ``forward_intermediates``,
``pretrained_cfg_overlay``, ``reparameterize_model``, ...; see :mod:`lit_models.networks.timm_conventions`). A name that
timm has is left to timm. What they do not have, and why:

- weights to download: nobody has published ours;
- ``drop_path_rate`` in VanillaNet and GoogLeNet, which have no residual branch;
- pooling other than the mean, and ``feature_cls="list"`` or ``"dict"``, which run the children of a network one after
  another: a VanillaNet hands λ to its blocks, and a ResNet has activations between its children;
- an early stop in ``forward_intermediates``: ``prune_intermediate_layers`` removes what need not run;
- scripting of the Python itself: ``torch.jit.script`` gets the network as traced by ``torch.fx`` in its mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.networks.timm_conventions import TimmCIFARResNet, TimmConventions, TimmGoogLeNet, TimmVanillaNet
from lit_models.networks.vanillanet import LAYERS


class Family(NamedTuple):
    """What timm wants to know of networks of one class."""

    network: type[TimmConventions]
    num_stages: int
    description: dict[str, Any]
    """timm's ``default_cfg``."""


_IMAGENET = {
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "num_classes": 1000,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
}
VANILLANET = Family(
    TimmVanillaNet,
    4,
    {**_IMAGENET, "first_conv": "stem.convs.first.0", "classifier": ("head.first.0", "head.second")},
)
GOOGLENET = Family(TimmGoogLeNet, 5, {**_IMAGENET, "first_conv": "conv1.conv", "classifier": "fc"})
CIFAR_RESNET = Family(
    TimmCIFARResNet,
    3,
    {
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "num_classes": 10,
        "crop_pct": 1.0,
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "conv1",
        "classifier": "fc",
    },
)

NETWORKS: dict[str, tuple[Family, dict[str, Any]]] = {
    **{f"vanillanet_{depth}": (VANILLANET, {"depth": depth}) for depth in LAYERS},
    "vanillanet_13_x1_5": (VANILLANET, {"depth": 13, "width": 768}),
    "vanillanet_13_x1_5_ada_pool": (
        VANILLANET,
        {"depth": 13, "width": 768, "adaptive_pool": True, "stem_stride": 3},
    ),
    "googlenet": (GOOGLENET, {"batch_norm": False, "aux_heads": False}),
    "googlenet_bn": (GOOGLENET, {"aux_heads": False}),
    "googlenet_torchvision": (GOOGLENET, {"variant": "torchvision", "aux_heads": False}),
    **{f"resnet{depth}_cifar": (CIFAR_RESNET, {"depth": depth}) for depth in (20, 32, 44, 56, 110)},
}
"""Family and arguments of each network, by name."""

_DIFFERENCES: dict[str, dict[str, Any]] = {
    # On smaller images its pools of fixed size repeat pixels, and its maps are finer than their reduction says.
    "vanillanet_13_x1_5_ada_pool": {"pool_size": (10, 10), "min_input_size": (3, 224, 224)},
    "googlenet_torchvision": {"mean": IMAGENET_INCEPTION_MEAN, "std": IMAGENET_INCEPTION_STD},
}
"""Where a network is described otherwise than its family."""

# timm reads this name.
default_cfgs = generate_default_cfgs(
    {name: family.description | _DIFFERENCES.get(name, {}) for name, (family, _) in NETWORKS.items()}
)


def register_with_timm() -> None:
    """Add the networks under the names that timm does not have. A second call does nothing."""
    for name, (family, arguments) in NETWORKS.items():
        if not is_model(name):
            register_model(_entrypoint(name, family, arguments))


def _entrypoint(name: str, family: Family, arguments: dict[str, Any]) -> Callable[..., nn.Module]:
    """What timm calls to create a network."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if kwargs.get("feature_cls") in ("list", "dict"):
            raise NetworkError(
                f"The features of {name} can't be had by running its children one after another, as"
                f" feature_cls={kwargs['feature_cls']!r} does: use hook, getter or fx."
            )
        if family is VANILLANET and kwargs.get("reparameterized"):
            merged = {"first_conv": "stem.convs.first", "classifier": "head.first"}
            kwargs["pretrained_cfg_overlay"] = merged | (kwargs.get("pretrained_cfg_overlay") or {})
        return build_model_with_cfg(
            partial(family.network, **arguments),
            name,
            pretrained,
            feature_cfg={"out_indices": tuple(range(family.num_stages)), "feature_cls": "hook"},
            pretrained_filter_fn=_without_other_classifiers,
            **kwargs,
        )

    create.__name__ = name
    return create


def _without_other_classifiers(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The weights but for those of a classifier that does not fit; timm leaves out no batch normalisation in one."""
    prefix, own = f"{net.get_classifier(name_only=True)}.", net.state_dict()  # type: ignore[operator]
    return {
        name: weight
        for name, weight in state.items()
        if not name.startswith(prefix) or (name in own and own[name].shape == weight.shape)
    }
