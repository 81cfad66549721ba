"""Networks taken apart into links: ours, torchvision's, timm's."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from lit_models import CIFARVGG, VGG, CIFARResNet, ResNet, TimmBackbone, VanillaNet
from lit_models.errors import NetworkError
from lit_models.interfaces import LinkedNetwork, identity
from lit_models.surgery.links import links

# Network, image size, links in all, links that can be deleted, transitions among these.
NETWORKS = {
    "ours": (lambda: CIFARResNet(20, width=4), 8, 11, 9, 2),
    "ours, pre-activation": (lambda: CIFARResNet(20, width=4, preactivation=True), 8, 11, 9, 2),
    "ours, option C": (lambda: CIFARResNet(14, width=4, shortcut="C", rescale="train"), 8, 8, 6, 2),
    "ours, plain": (lambda: CIFARResNet(20, width=4, shortcut="none"), 8, 20, 16, 0),
    "ours, 50-D": (lambda: ResNet(50, variant="D"), 32, 18, 16, 4),
    "ours, VGG": (lambda: CIFARVGG(13, width=4), 32, 16, 6, 0),
    "ours, large VGG": (lambda: small_vgg(VGG(11)), 32, 17, 5, 0),
    "ours, VanillaNet": (lambda: VanillaNet(10, depth=9, width=4), 64, 9, 4, 0),
    "ours, VanillaNet, before": (lambda: VanillaNet(10, depth=7, width=4, shortcut="before"), 64, 7, 5, 3),
    "ours, VanillaNet, after": (lambda: VanillaNet(10, depth=7, width=4, shortcut="after"), 64, 7, 5, 3),
    "ours, timm:resnet10t": (lambda: TimmBackbone("resnet10t", 10), 32, 6, 4, 3),
    "torchvision:resnet18": (torchvision.models.resnet18, 32, 10, 8, 3),
    "torchvision:resnet50": (torchvision.models.resnet50, 32, 18, 16, 4),
    "torchvision:resnext50": (torchvision.models.resnext50_32x4d, 32, 18, 16, 4),
    "torchvision:vgg11_bn": (lambda: small_vgg(torchvision.models.vgg11_bn(init_weights=False)), 32, 17, 5, 0),
    "torchvision:alexnet": (lambda: small_vgg(torchvision.models.alexnet()), 64, 13, 2, 0),
    "timm:resnet18": (lambda: timm.create_model("resnet18"), 32, 10, 8, 3),
    "timm:resnet26d": (lambda: timm.create_model("resnet26d"), 32, 10, 8, 4),
    "timm:seresnext26d": (lambda: timm.create_model("seresnext26d_32x4d"), 32, 10, 8, 4),
    "timm:resnetblur18": (lambda: timm.create_model("resnetblur18"), 32, 10, 8, 3),
    "timm, other activation and widths": (
        lambda: timm.create_model("resnet10t", act_layer="silu", channels=(64, 64, 128, 256)),
        32,
        6,
        4,
        3,
    ),
    "timm:convnext_atto": (lambda: timm.create_model("convnext_atto"), 32, 17, 12, 0),
    "timm:convnextv2_atto": (lambda: timm.create_model("convnextv2_atto", drop_path_rate=0.2), 32, 17, 12, 0),
    "timm:vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32), 32, 26, 24, 0),
    "timm:deit distilled": (lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=32), 32, 26, 24, 0),
    "timm, layer scale": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, init_values=0.1, depth=3),
        32,
        8,
        6,
        0,
    ),
}


def small_vgg(net):
    """With its classifier's layers in the same order, but 64 wide: the links don't know, and the memory is spared."""
    linears = [name for name, layer in net.classifier.named_children() if isinstance(layer, nn.Linear)]
    widths = [net.classifier[int(linears[0])].in_features, 64, 64, 10]
    for name, c_in, c_out in zip(linears, widths, widths[1:], strict=False):
        net.classifier[int(name)] = nn.Linear(c_in, c_out)
    return net


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network in evaluation mode with random statistics and scales, images for it, and what is expected of it."""
    make, size, *counts = NETWORKS[request.param]
    torch.manual_seed(0)
    net = make().eval()
    for name, value in (*net.named_parameters(), *net.named_buffers()):
        with torch.no_grad():
            if name.endswith(("running_var", "survival_prob")):
                value.uniform_(0.5, 1)
            elif name.endswith(("running_mean", "bias")):
                value.normal_(0, 0.1)
            elif name.endswith("gamma"):
                value.uniform_(0.5, 1)  # ConvNeXt starts with branches that are next to nothing
    return net, torch.randn(2, 3, size, size), counts


@torch.no_grad()
def test_the_links_are_the_network_bit_for_bit(network):
    net, images, (count, removable, transitions) = network
    chain = links(net)
    assert len(chain) == count
    assert sum(link.removable for link in chain) == removable
    assert sum(link.transition for link in chain if link.removable) == transitions

    x = images
    for link in chain:
        before = x.clone()
        y = link.forward(x)
        assert torch.equal(x, before), f"{link.name} wrote into its argument"
        if link.removable:
            assert link.transition == (x.shape != y.shape), link.name
            deleted = link.without_branch(x)
            assert deleted.shape == y.shape
            assert torch.equal(x, before), f"{link.name} wrote into its argument when deleted"
        x = y
    assert torch.equal(x, net(images))


@torch.no_grad()
def test_a_residual_link_is_the_activation_of_shortcut_plus_branch(network):
    net, x, _ = network
    net, x = net.double(), x.double()
    for link in links(net):
        y = link.forward(x)
        if link.branch is not None:
            branch = link.branch(x)
            assert branch.abs().max() > 1e-3, "a branch of nothing would prove nothing"
            total = link.shortcut(x) + branch
            torch.testing.assert_close(y, total if link.activation is None else link.activation(total))
        x = y
    net.float()


def test_links_of_a_stage_that_keep_the_shape_can_be_exchanged(network):
    net, images, _ = network
    shapes, x = {}, images
    with torch.no_grad():
        for link in links(net):
            x = link.forward(x)
            if link.removable:
                shapes.setdefault(link.stage, set()).add(x.shape)
    assert all(len(of_stage) == 1 for of_stage in shapes.values())


def test_names_are_those_of_modules(network):
    net, _, _ = network
    chain = links(net)
    assert len({link.name for link in chain}) == len(chain)
    for link in chain:
        net.get_submodule(link.name)


def test_a_branch_counts_with_its_survival_probability():
    net = CIFARResNet(8, width=4).eval()
    net.layer1[0].survival_prob.fill_(0.25)
    x = torch.rand(2, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(links(net)[1].branch(x), net.layer1[0].branch(x) / 4)


def test_a_shortcut_that_is_the_identity_can_be_told():
    chain = links(CIFARResNet(14, width=4))
    assert [link.shortcut is identity for link in chain[1:-1]] == [True, True, False, True, False, True]


def test_a_link_that_the_network_needs_says_so():
    with pytest.raises(TypeError, match="conv1 can't be deleted"):
        links(CIFARResNet(8))[0].without_branch(torch.rand(1, 3, 8, 8))


def test_any_network_may_say_itself_what_its_links_are():
    class Mine(nn.Module):
        def links(self):
            return ["mine"]

    assert isinstance(Mine(), LinkedNetwork)
    assert links(Mine()) == ["mine"]


@pytest.mark.parametrize("net", [nn.Linear(2, 2), nn.Identity()])
def test_others_are_refused_by_name(net):
    with pytest.raises(NetworkError, match=type(net).__qualname__):
        links(net)


def test_an_unknown_block_inside_a_known_network_is_refused_by_name():
    net = timm.create_model("resnet10t")
    net.layer2[0] = nn.Identity()
    with pytest.raises(NetworkError, match=r"Identity \(layer2.0\)"):
        links(net)
