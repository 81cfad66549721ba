import pytest
import timm
import torch
import torchvision
from torch import nn

from experiments.unravel.layer_responses import layer_responses
from lit_models import CIFARResNet


def images(n=6):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def randomised(net):
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.2, 2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def test_responses_are_those_after_normalisation_and_before_the_sum():
    net = randomised(CIFARResNet(8, width=4, shortcut="B"))
    x = images()
    expected = {"conv1": net.bn1(net.conv1(x))}
    y = expected["conv1"].relu()
    for name, block in net.residual_blocks().items():
        expected[f"{name}.conv1"] = block.bn1(block.conv1(y))
        expected[f"{name}.conv2"] = block.bn2(block.conv2(expected[f"{name}.conv1"].relu()))
        y = (expected[f"{name}.conv2"] + block.shortcut(y)).relu()
    found = layer_responses(net, x.split(2))
    assert list(found) == list(expected)
    for name, response in expected.items():
        assert found[name] == pytest.approx(response.std(correction=0).item(), rel=1e-5)


def test_a_convolution_before_the_sum_has_no_normalisation_of_its_own():
    """With pre-activation."""
    net = randomised(CIFARResNet(8, width=4, preactivation=True))
    x = net.conv1(images())
    block = net.layer1[0]
    f = block.conv1(block.bn1(x).relu())
    found = layer_responses(net, [images()])
    assert found["layer1.0.conv1"] == pytest.approx(block.bn2(f).std(correction=0).item(), rel=1e-5)
    f = block.conv2(block.bn2(f).relu())
    assert found["layer1.0.conv2"] == pytest.approx(f.std(correction=0).item(), rel=1e-5)


def plain():
    """Without batch normalisation, and with ReLUs that overwrite what they get."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True))


def test_a_relu_in_place_comes_too_late():
    torch.manual_seed(0)
    net = plain()
    response = net[0](images())
    assert layer_responses(net, [images()])["0"] == pytest.approx(response.std(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda: CIFARResNet(20, width=4, shortcut="none"), 19),
        (lambda: torchvision.models.resnet18(), 17),
        (lambda: timm.create_model("resnet26d", zero_init_last=False), 27),
        (lambda: timm.create_model("convnext_atto"), 1 + 3 * 12 + 3),
        (lambda: timm.create_model("regnetx_002", zero_init_last=False), 1 + 3 * 13),
        (plain, 2),
    ],
)
def test_shortcuts_are_no_layers(make, layers):
    net = make().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = layer_responses(net, [torch.randn(1, 3, 32, 32)])
    assert len(found) == layers
    assert all(value > 0 for value in found.values())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
