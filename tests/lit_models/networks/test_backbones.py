"""Feature maps and dilation of every network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from lit_models import (
    CIFARVGG,
    VGG,
    CIFARGoogLeNet,
    CIFARResNet,
    GoogLeNet,
    NetworkError,
    ResNet,
    TimmBackbone,
    VanillaNet,
)
from lit_models.interfaces import Backbone

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet(18),
    "resnet50d": lambda: ResNet(50, variant="D"),
    "preactivation": lambda: CIFARResNet(8, width=4, preactivation=True),
    "cifar": lambda: CIFARResNet(14, width=4),
    "plain": lambda: CIFARResNet(8, width=4, shortcut="none"),
    "vanillanet5": lambda: VanillaNet(10, depth=5, width=8),
    "vanillanet13": lambda: VanillaNet(10, depth=13, width=8),
    "merged vanillanet": lambda: VanillaNet(10, depth=6, width=8, reparameterized=True),
    "googlenet": lambda: GoogLeNet(10),
    "cifar googlenet": lambda: CIFARGoogLeNet(width=4, modules_per_stage=(1, 3, 1)),
    "vgg": lambda: VGG(11, 10),
    "cifar vgg": lambda: CIFARVGG(11, width=4),
    "timm resnet": lambda: TimmBackbone("resnet10t", 10),
    "timm convnext": lambda: TimmBackbone("convnext_atto", 10),
}
DENSE = [
    "resnet18",
    "preactivation",
    "cifar",
    "plain",
    "vanillanet5",
    "merged vanillanet",
    "cifar googlenet",
    "cifar vgg",
]


def with_random_statistics(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return net.eval()


@pytest.fixture(params=BUILDERS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    net = with_random_statistics(BUILDERS[request.param]())
    assert isinstance(net, Backbone)
    return net


@torch.no_grad()
def test_maps_have_the_channels_and_strides_that_the_network_says(backbone: Backbone) -> None:
    maps = backbone.feature_maps(torch.randn(1, 3, 96, 96))
    assert len(maps) >= 3
    assert tuple(map_.shape[1] for map_ in maps) == backbone.feature_channels
    sides = tuple(-(-96 // stride) for stride in backbone.feature_strides)
    assert tuple(map_.shape[-1] for map_ in maps) == sides
    assert list(sides) == sorted(set(sides), reverse=True)  # one map of each resolution, finest first


@torch.no_grad()
def test_the_last_map_is_what_the_classifier_gets(backbone: Backbone) -> None:
    net = backbone.model if isinstance(backbone, TimmBackbone) else backbone
    images = torch.randn(2, 3, 96, 96)
    expected = net.forward_features(images)
    if isinstance(backbone, TimmBackbone):
        intermediates = net.forward_intermediates(images, intermediates_only=True)
        assert all(any(torch.equal(map_, other) for other in intermediates) for map_ in backbone.feature_maps(images))
    assert expected.abs().max() > 0
    assert torch.equal(backbone.feature_maps(images)[-1], expected)


def test_strides_of_known_networks() -> None:
    assert ResNet(18).feature_strides == (4, 8, 16, 32)
    assert ResNet(50).feature_channels == (256, 512, 1024, 2048)
    assert CIFARResNet(20).feature_strides == (1, 2, 4)
    vanillanet13 = VanillaNet(10, depth=13)
    assert vanillanet13.feature_channels == (512, 1024, 2048, 4096)
    assert vanillanet13.feature_strides == (4, 8, 16, 32)
    assert GoogLeNet(10).feature_channels == (64, 192, 480, 832, 1024)


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_a_dilated_network_computes_the_same_at_every_other_pixel(name: str) -> None:
    """A property of the algorithme à trous, away from the border, where the padding is of other pixels."""
    torch.manual_seed(0)
    net = with_random_statistics(BUILDERS[name]()).double()
    images = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    coarse = net.feature_maps(images)
    *_, finer, coarsest = net.feature_strides
    net.dilate(finer)
    assert net.feature_strides[-1] == finer
    dense = net.feature_maps(images)
    assert len(dense) == len(coarse)
    for before, after in zip(coarse[:-1], dense[:-1], strict=True):
        assert torch.equal(before, after)
    factor = coarsest // finer
    assert torch.allclose(dense[-1][..., ::factor, ::factor], coarse[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [50])
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_a_dilated_resnet_b_is_that_of_torchvision_and_timm(depth: int, output_stride: int) -> None:
    dilated = [False, output_stride == 8, True]
    theirs = with_random_statistics(torchvision.models.resnet50(replace_stride_with_dilation=dilated)).double()
    ours = ResNet(depth).double().eval()
    ours.load_state_dict(theirs.state_dict())
    ours.dilate(output_stride)
    timms = timm.create_model("resnet50", output_stride=output_stride).double().eval()
    timms.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = theirs(images)
    assert torch.equal(ours(images), expected)
    assert torch.equal(timms(images), expected)


@torch.no_grad()
def test_a_basic_block_is_dilated_as_with_timm() -> None:
    timms = with_random_statistics(timm.create_model("resnet18", output_stride=8)).double()
    ours = ResNet(18).double().eval()
    ours.load_state_dict(timms.state_dict())
    ours.dilate(8)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert torch.equal(ours(images), timms(images))


def test_refusals() -> None:
    with pytest.raises(NetworkError, match="strides of 4, 8, 16, 32"):
        ResNet(18).dilate(12)
    with pytest.raises(NetworkError, match="adaptive_pool"):
        VanillaNet(10, depth=13, width=8, stem_stride=3, adaptive_pool=True).dilate(12)
    with pytest.raises(NetworkError, match="output_stride: 8"):
        TimmBackbone("resnet10t", 10).dilate(8)


def test_a_map_keeps_its_values_while_later_ones_are_computed() -> None:
    """Activations in place must not write into a map that was handed out."""
    for name in ("plain", "cifar vgg", "cifar googlenet", "preactivation"):
        net = with_random_statistics(BUILDERS[name]())
        images = torch.randn(1, 3, 64, 64)
        maps = net.feature_maps(images)
        sums: list[Tensor] = [map_.sum() for map_ in maps]
        torch.stack(sums).sum().backward()  # autograd refuses what was overwritten
        assert next(net.parameters()).grad.isfinite().all()
