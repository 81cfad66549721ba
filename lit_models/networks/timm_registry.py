"""Our networks in timm's registry: after ``import lit_models``, ``timm.create_model("vanillanet_6")`` builds one.

They are the classes of this package, so states fit both ways. timm's own arguments work: ``num_classes``, ``in_chans``,
``drop_rate``, ``features_only``, ``checkpoint_path``. A name that timm has is left to timm.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import nn

from lit_models.networks.dilation import stride_of
from lit_models.networks.googlenet import GoogLeNet
from lit_models.networks.resnet import CIFARResNet
from lit_models.networks.vanillanet import LAYERS, VanillaNet

Stage = dict[str, Any]
"""The last module before the maps shrink: its name, its channels, and how many pixels of the image one of its has."""


def _vanillanet_stages(net: VanillaNet) -> list[Stage]:
    stages: list[Stage] = []
    reduction = stride_of(net.stem)
    names = ["stem", *(f"blocks.{i}" for i in range(len(net.blocks)))]
    for name, stride in zip(names, (1, *net.strides), strict=True):
        channels = net.get_submodule(f"{name}.activation.conv").out_channels
        reduction *= stride
        if stages and stages[-1]["reduction"] == reduction:
            stages.pop()
        stages.append({"module": name, "num_chs": channels, "reduction": reduction})
    return stages


def _googlenet_stages(net: GoogLeNet) -> list[Stage]:
    channels = {name: net.get_submodule(name).out_channels for name in ("inception3b", "inception4e", "inception5b")}
    return [
        {"module": "conv1", "num_chs": 64, "reduction": 2},
        {"module": "conv3", "num_chs": 192, "reduction": 4},
        *({"module": name, "num_chs": channels[name], "reduction": 2**i} for i, name in enumerate(channels, start=3)),
    ]


def _resnet_stages(net: CIFARResNet) -> list[Stage]:
    width = net.num_features // 4
    return [{"module": name, "num_chs": width << i, "reduction": 1 << i} for i, name in enumerate(net.stages)]


class Family(NamedTuple):
    """What timm wants to know of networks of one class."""

    network: type[nn.Module]
    stages: Callable[[Any], list[Stage]]
    num_stages: int
    first_conv: str
    classifier: str | tuple[str, ...]
    side: int
    """Of the images, in pixels."""
    num_classes: int


VANILLANET = Family(
    VanillaNet, _vanillanet_stages, 4, "stem.convs.first.0", ("head.first.0", "head.second"), side=224, num_classes=1000
)
GOOGLENET = Family(GoogLeNet, _googlenet_stages, 5, "conv1.conv", "fc", side=224, num_classes=1000)
CIFAR_RESNET = Family(CIFARResNet, _resnet_stages, 3, "conv1", "fc", side=32, num_classes=10)

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


def _description(family: Family) -> dict[str, Any]:
    return {
        "input_size": (3, family.side, family.side),
        "num_classes": family.num_classes,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": family.first_conv,
        "classifier": family.classifier,
    }


# timm reads this name.
default_cfgs = generate_default_cfgs({name: _description(family) for name, (family, _) in NETWORKS.items()})


def register_with_timm() -> None:
    """Add the networks under the names that timm does not have. A second call does nothing."""
    for name, (family, arguments) in NETWORKS.items():
        if not is_model(name):
            register_model(_entrypoint(name, family, arguments))


def _entrypoint(name: str, family: Family, arguments: dict[str, Any]) -> Callable[..., nn.Module]:
    """What timm calls to create a network."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = {"out_indices": tuple(range(family.num_stages)), "feature_cls": "hook"}
        build = partial(_build, family, arguments)
        return build_model_with_cfg(build, name, pretrained, feature_cfg=features, **kwargs)

    create.__name__ = name
    return create


def _build(
    family: Family,
    arguments: dict[str, Any],
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_rate: float | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network from arguments under timm's names."""
    classes = family.num_classes if num_classes is None else num_classes
    if drop_rate is not None and ("dropout" in inspect.signature(family.network).parameters or drop_rate):
        kwargs["dropout"] = drop_rate
    net = family.network(num_classes=classes or 1, in_channels=in_chans, **(arguments | kwargs))
    if classes == 0:
        net.reset_classifier(0)  # type: ignore[operator]
    net.feature_info = family.stages(net)  # type: ignore[assignment]
    net.num_classes = classes  # type: ignore[assignment]
    return net
