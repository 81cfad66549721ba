"""VGG against torchvision and the numbers of the paper."""

import pytest
import torch
import torchvision
from torch import nn

from lit_models import CIFARVGG, VGG
from lit_models.cost import count_macs, count_parameters
from lit_models.errors import NetworkError
from lit_models.surgery.links import links


@pytest.mark.parametrize(
    ("depth", "batch_norm", "parameters", "gmacs"),
    [(16, False, 138_357_544, 15.47), (19, False, 143_667_240, 19.63), (16, True, 138_365_992, 15.47)],
)
def test_cost(depth, batch_norm, parameters, gmacs):
    with torch.device("meta"):
        net = VGG(depth, batch_norm=batch_norm)
    assert count_parameters(net) == parameters
    assert count_macs(net, (3, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=0.006)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_same_layers_as_torchvision(depth, batch_norm):
    """All of them on the meta device; their 130 M weights would take seconds."""
    with torch.device("meta"):
        ours = VGG(depth, batch_norm=batch_norm)
        theirs = torchvision.models.get_model(f"vgg{depth}{'_bn' if batch_norm else ''}")
    for part in ("features", "classifier"):
        layers = [[layer.extra_repr() for layer in net.get_submodule(part)] for net in (ours, theirs)]
        assert layers[0] == layers[1]
    shapes = [{name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours(torch.empty(1, 3, 64, 70, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_same_features_as_torchvision(batch_norm):
    torch.manual_seed(0)
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm)
    for module in theirs:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    ours = CIFARVGG(11, batch_norm=batch_norm)
    ours.features.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 70)
    with torch.no_grad():
        expected = theirs.eval()(images)
        assert expected.std() > 0
        torch.testing.assert_close(ours.eval().features(images), expected)
        torch.testing.assert_close(ours(images), ours.fc(expected.mean((2, 3))))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_small_one_trains_all_of_its_parameters(batch_norm):
    torch.manual_seed(0)
    net = CIFARVGG(16, 7, in_channels=1, width=8, batch_norm=batch_norm)
    logits = net(torch.randn(4, 1, 32, 32))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for name, p in net.named_parameters() if name.endswith("weight"))


def test_settings_that_make_no_network_are_explained():
    with pytest.raises(NetworkError, match="11, 13, 16, 19"):
        VGG(12)
    with pytest.raises(NetworkError, match="at least 32"):
        CIFARVGG(11, width=4)(torch.randn(1, 3, 28, 28))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_its_links_are_the_network(batch_norm):
    torch.manual_seed(0)
    net = CIFARVGG(13, width=8, batch_norm=batch_norm).eval()
    x = images = torch.randn(2, 3, 32, 32)
    for link in links(net):
        x = link.forward(x)
    assert torch.equal(x, net(images))
    convolutions = [(i, layer) for i, layer in enumerate(net.features) if isinstance(layer, nn.Conv2d)]
    same = [f"features.{i}" for i, conv in convolutions if conv.in_channels == conv.out_channels]
    assert [link.name for link in links(net) if link.removable] == same
    with torch.device("meta"):
        ours, theirs = VGG(11, batch_norm=False), torchvision.models.vgg11()
    assert [(link.name, link.stage) for link in links(ours)] == [(link.name, link.stage) for link in links(theirs)]


def test_weights_begin_as_those_of_torchvision():
    """In closed form, as the original's 130 M weights would take seconds."""
    torch.manual_seed(0)
    for layer in CIFARVGG(11, width=16, batch_norm=False).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            std = 0.01 if isinstance(layer, nn.Linear) else (2 / (9 * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
            assert not layer.bias.any()
