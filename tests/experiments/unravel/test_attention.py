"""Grad-CAM against its formula, written out with autograd."""

import pytest
import timm
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from experiments.unravel.attention import attention_maps, half_of_attention, last_map_layer
from lit_models import CIFARResNet, TimmBackbone, VanillaNet

captum = pytest.importorskip("captum", reason="the extra `attention` is not installed")


def by_formula(net, features, head, images, targets):
    """ReLU(Σ_c mean_{h,w}(∂z_y/∂A_c) A_c), enlarged."""
    activations = features(images).detach().requires_grad_()
    logits = head(activations).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(logits, activations)
    maps = (gradient.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    return nn.functional.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0].detach()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CIFARResNet(8, width=4),
        lambda: VanillaNet(10, depth=6, width=8, stem_kernel=2, stem_stride=1),
        lambda: timm.create_model("test_resnet", num_classes=10),
        lambda: timm.create_model("test_efficientnet", num_classes=10),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_maps_are_those_of_the_formula(make, frozen):
    torch.manual_seed(4)
    net = make().eval().requires_grad_(not frozen)
    images, targets = torch.randn(3, 3, 64, 64), torch.tensor([1, 4, 4])
    found = attention_maps(net, images, targets)
    torch.testing.assert_close(found, by_formula(net, net.forward_features, net.forward_head, images, targets))
    assert found.shape == (3, 64, 64)
    assert found.max() > 0
    assert not torch.equal(found[1], attention_maps(net, images, torch.tensor([1, 5, 4]))[1])
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_every_network_of_ours_has_a_last_map(small_network):
    net = small_network.build().eval()
    side = 2 * small_network.image_size
    with torch.no_grad():
        maps = attention_maps(net, torch.randn(2, 1, side, side), torch.tensor([0, 1]))
    assert maps.shape == (2, side, side)


def test_the_layer_is_the_last_before_the_classifier():
    net = CIFARResNet(8, width=4)
    assert last_map_layer(net, torch.randn(1, 3, 16, 16)) is net.layer3
    net = TimmBackbone("test_resnet", 10)
    assert last_map_layer(net, torch.randn(1, 3, 64, 64)) is net.model.layer4


@pytest.mark.parametrize(
    "make", [lambda: timm.create_model("vit_tiny_patch16_224"), lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10))]
)
def test_a_network_without_a_map_is_one_sentence(make):
    net = make().eval()
    with pytest.raises(MisconfigurationException, match="has no layer whose output is its last feature map"):
        attention_maps(net, torch.randn(1, 3, 224, 224), torch.tensor([0]))
    assert not any(module._forward_hooks for module in net.modules())


def test_half_of_attention():
    even = torch.ones(1, 4, 4)
    point = torch.zeros(1, 4, 4)
    point[0, 1, 2] = 3
    two_levels = torch.tensor([3.0, 1, 1, 1, 0, 0, 0, 0]).reshape(1, 2, 4)
    assert half_of_attention(even).item() == pytest.approx(0.5)
    assert half_of_attention(point).item() == pytest.approx(0.5 / 16)
    assert half_of_attention(two_levels).item() == pytest.approx(1 / 8)
    assert half_of_attention(7 * two_levels.flip(2)).item() == pytest.approx(1 / 8)
    assert half_of_attention(torch.zeros(1, 2, 2)).isnan().item()
