"""The numbers of layers that ``layer_decay`` follows: timm's own where it has the network, and in forward order."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lit_models import CIFARVGG, FCN, VGG, CIFARGoogLeNet, CIFARResNet, GoogLeNet, ResNet
from lit_models.networks.timm_layers import layers_of


def numbers(net: nn.Module, coarse: bool) -> dict[str, int]:
    """The number of each layer with weights, by module name."""
    return {name.rpartition(".")[0]: number for name, number in layers_of(net, coarse).items()}


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(
    ("name", "depth", "variant"), [("resnet18", 18, "B"), ("resnet50", 50, "B"), ("resnet50d", 50, "D")]
)
def test_a_resnet_has_the_layers_of_timms(name: str, depth: int, variant: str, coarse: bool) -> None:
    with torch.device("meta"):
        expected = layers_of(timm.create_model(name), coarse)
        assert layers_of(ResNet(depth, variant=variant), coarse) == expected
    assert expected["fc.weight"] == (5 if coarse else sum((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)) + 1)


def test_a_vgg_has_the_layers_of_timms() -> None:
    with torch.device("meta"):
        expected, found = layers_of(timm.create_model("vgg16")), layers_of(VGG(16, batch_norm=False))
    assert {name: found[name] for name in expected if name.startswith("features.")} == {
        name: number for name, number in expected.items() if name.startswith("features.")
    }
    assert {found[f"classifier.{i}.weight"] for i in (0, 3, 6)} == {expected["head.fc.weight"]} == {13}


@pytest.mark.parametrize(
    ("net", "head", "fine", "coarse"),
    [
        (CIFARResNet(14, width=4), ["fc"], 8, 5),
        (CIFARResNet(14, width=4, shortcut="none"), ["fc"], 8, 5),
        (CIFARResNet(14, width=4, preactivation=True), ["bn1", "fc"], 8, 5),
        (CIFARVGG(11, width=4), ["fc"], 9, 6),
        (GoogLeNet(10), ["aux1", "aux2", "fc"], 13, 6),
        (CIFARGoogLeNet(width=4, modules_per_stage=(1, 3, 1), reparameterized=True), ["fc"], 7, 5),
    ],
    ids=["resnet", "plain", "preactivation", "vgg", "googlenet", "merged googlenet"],
)
def test_layers_are_numbered_forward_and_the_head_is_last(
    net: nn.Module, head: list[str], fine: int, coarse: int
) -> None:
    for is_coarse, count in ((False, fine), (True, coarse)):
        found = numbers(net, is_coarse)
        before = [number for name, number in found.items() if name.partition(".")[0] not in head]
        assert before == sorted(before)
        assert {*before} == {*range(count - 1)}
        assert {number for name, number in found.items() if name.partition(".")[0] in head} == {count - 1}


def test_a_batch_normalisation_is_of_the_layer_of_its_convolution() -> None:
    found = numbers(CIFARVGG(11, width=4), coarse=False)
    assert [found[f"features.{i}"] for i in (0, 1, 4, 5, 8, 9, 11, 12)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_dilation_leaves_the_stages_as_they_are() -> None:
    for net in (CIFARVGG(11, width=4), CIFARGoogLeNet(width=4, modules_per_stage=(1, 3, 1), aux_heads=False)):
        found = {f"backbone.net.{name}": number for name, number in numbers(net, coarse=True).items()}
        dilated = numbers(FCN(net, 2, output_stride=2), coarse=True)
        assert {name: dilated[name] for name in found if name in dilated} == {
            name: number for name, number in found.items() if name in dilated
        }
        assert max(dilated.values()) == dilated["classifier.0"] == max(found.values())
