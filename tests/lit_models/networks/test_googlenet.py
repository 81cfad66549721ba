"""GoogLeNet against torchvision and the numbers of the papers."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from lit_models import CIFARGoogLeNet, GoogLeNet, ImageClassifier
from lit_models.cost import count_macs, count_parameters
from lit_models.errors import NetworkError
from lit_models.interfaces import LogitsWithAux, Reparameterizable
from lit_models.networks.googlenet import AuxiliaryHead
from lit_models.networks.inception import InceptionModule, Widths
from lit_models.surgery.links import links


def randomise_batch_norm(net):
    """Fresh statistics and weights of 0 and 1 would hide a missing or misplaced normalisation."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({"batch_norm": False, "aux_heads": False}, 6_998_552),
        ({"batch_norm": False}, 13_378_280),
        ({"variant": "torchvision", "aux_heads": False}, 6_624_904),
        ({"variant": "torchvision"}, 13_004_888),
        ({"reparameterized": True}, 6_998_552),
    ],
)
def test_parameters(arguments, parameters):
    """Of the merged network they are those of the original, which has biases and no normalisation."""
    with torch.device("meta"):
        net = GoogLeNet(**arguments)
    assert count_parameters(net) == parameters


@pytest.mark.parametrize(
    ("module", "mmacs"),
    {
        "3a": 128.0,
        "3b": 304.3,
        "4a": 73.6,
        "4b": 87.9,
        "4c": 99.9,
        "4d": 118.5,
        "4e": 170.0,
        "5a": 51.1,
        "5b": 70.7,
    }.items(),
)
def test_multiply_adds_of_each_module(module, mmacs):
    with torch.device("meta"):
        net = GoogLeNet(batch_norm=False).get_submodule(f"inception{module}")
    size = {"3": 28, "4": 14, "5": 7}[module[0]]
    assert count_macs(net, (net.branch1.conv.in_channels, size, size)) / 1e6 == pytest.approx(mmacs, abs=0.06)


def test_multiply_adds_are_without_the_auxiliary_heads():
    with torch.device("meta"):
        with_heads, without = GoogLeNet(), GoogLeNet(aux_heads=False)
    assert count_macs(with_heads, (3, 224, 224)) == count_macs(without, (3, 224, 224)) == 1_582_671_872


def test_every_module_has_a_real_5x5():
    with torch.device("meta"):
        net = GoogLeNet()
    modules = [module for module in net.modules() if isinstance(module, InceptionModule)]
    kernels = [[m.kernel_size[0] for m in module.modules() if isinstance(m, nn.Conv2d)] for module in modules]
    assert kernels == [[1, 1, 3, 1, 5, 1]] * 9


@pytest.mark.parametrize("training", [False, True])
def test_same_logits_and_input_gradients_as_torchvision(training):
    torch.manual_seed(0)
    theirs = torchvision.models.googlenet(init_weights=False, num_classes=11, dropout=0.0, dropout_aux=0.0)
    ours = GoogLeNet(11, variant="torchvision", dropout=0.0)
    randomise_batch_norm(theirs)
    ours.load_state_dict(theirs.state_dict())
    for head in ("aux1", "aux2"):
        ours.get_submodule(head).dropout.p = 0.0
    images = torch.randn(2, 3, 97, 97, dtype=torch.float64)
    outputs, gradients = [], []
    for net in (ours, theirs):
        x = images.clone().requires_grad_()
        output = net.double().train(training)(x)
        if training:
            logits, *aux = output
            aux1, aux2 = aux[0] if net is ours else aux[::-1]
            output = torch.stack([logits, aux1, aux2])
        (output * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
        outputs.append(output.detach())
        gradients.append(x.grad)
    assert outputs[0].shape == ((3, 2, 11) if training else (2, 11))
    assert outputs[0].std() > 0.01
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    if training:
        assert (outputs[0][1] - outputs[0][2]).abs().max() > 0.01


def test_the_pool_of_an_auxiliary_head_is_the_papers_where_it_fits():
    head = AuxiliaryHead(3, 5, width=4).eval()
    adaptive = AuxiliaryHead(3, 5, width=4, adaptive=True).eval()
    adaptive.load_state_dict(head.state_dict())
    x = torch.randn(2, 3, 14, 14)
    windows = x.unfold(2, 5, 3).unfold(3, 5, 3).mean((4, 5))
    torch.testing.assert_close(head(x), adaptive(windows))
    assert not torch.allclose(head(x), adaptive(x))
    x = torch.randn(2, 3, 7, 9)
    torch.testing.assert_close(head(x), adaptive(x))


def test_a_module_against_its_convolutions():
    """Both kinds, and the growing depth of the naive one."""
    x = torch.randn(2, 8, 9, 9)
    for bottleneck in (True, False):
        module = InceptionModule(8, Widths(4, 6, 8, 2, 3, 5), bottleneck, batch_norm=False).eval()
        one, three, five = module.branch1, module.branch2, module.branch3
        assert module(x).shape == (2, module.out_channels, 9, 9)
        assert module.out_channels == (4 + 8 + 3 + 5 if bottleneck else 4 + 8 + 3 + 8)
        pooled = nn.functional.max_pool2d(nn.functional.pad(x, (1, 1, 1, 1), value=-1e9), 3, 1)
        for layer in module.branch4[1:]:
            pooled = layer(pooled)
        torch.testing.assert_close(module(x), torch.cat([one(x), three(x), five(x), pooled], 1))
        assert len(three) == len(five) == len(module.branch4) == (2 if bottleneck else 1)


NETS = {
    "original": lambda: GoogLeNet(7, batch_norm=False, dropout=0.0),
    "batch norm": lambda: GoogLeNet(7, dropout=0.0),
    "naive": lambda: CIFARGoogLeNet(7, width=4, bottleneck=False),
    "small": lambda: CIFARGoogLeNet(7, in_channels=1, width=4),
    "small, no batch norm": lambda: CIFARGoogLeNet(7, width=16, batch_norm=False),
    "small, no heads": lambda: CIFARGoogLeNet(7, width=4, modules_per_stage=(1, 1, 1), aux_heads=False),
}


@pytest.mark.parametrize("name", NETS)
def test_every_network_trains_all_of_its_parameters(name):
    torch.manual_seed(0)
    net = NETS[name]()
    for head in net.heads.values():
        net.get_submodule(head).dropout.p = 0.0
    size = 64 if isinstance(net, GoogLeNet) else 32
    output = net(torch.randn(4, net.conv1.conv.in_channels, size, size))
    logits = [output.logits, *output.aux_logits] if net.heads else [output]
    assert [tuple(values.shape) for values in logits] == [(4, 7)] * (3 if net.heads else 1)
    assert isinstance(output, LogitsWithAux) == bool(net.heads)
    sum(values.square().sum() for values in logits).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    weights = [p for p in net.parameters() if p.ndim > 1]
    assert all(p.grad.abs().sum() > 0 for p in weights)
    assert isinstance(net.eval()(torch.randn(1, net.conv1.conv.in_channels, size, size)), torch.Tensor)


def test_without_batch_norm_the_signal_neither_dies_nor_explodes():
    torch.manual_seed(0)
    for net in (GoogLeNet(batch_norm=False), CIFARGoogLeNet(batch_norm=False)):
        size = 128 if isinstance(net, GoogLeNet) else 32
        features = net.eval().forward_features(torch.randn(4, 3, size, size))
        assert 0.1 < features.square().mean().sqrt() < 30


@pytest.mark.parametrize("name", ["batch norm", "small", "small, no batch norm"])
def test_merged_it_has_the_same_logits_and_no_heads(name):
    torch.manual_seed(0)
    net = NETS[name]().double().eval()
    randomise_batch_norm(net)
    images = torch.randn(2, net.conv1.conv.in_channels, 40, 40, dtype=torch.float64)
    before = net(images)
    assert isinstance(net, Reparameterizable)
    merged = copy.deepcopy(net)
    merged.reparameterize()
    merged.reparameterize()
    assert before.std() > 1e-3
    torch.testing.assert_close(merged(images), before, rtol=1e-10, atol=1e-10)
    assert not any("aux" in name or "bn" in name for name, _ in merged.named_parameters())
    assert isinstance(merged.train()(images), torch.Tensor)


def test_auxiliary_losses_are_weighted_in_training_alone():
    torch.manual_seed(0)
    net = CIFARGoogLeNet(5, width=4)
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 0])
    for head in net.heads.values():
        net.get_submodule(head).dropout.p = 0.0
    expected = {}
    for weight in (0.3, 0.0):
        model = ImageClassifier(net, 5, aux_weight=weight, label_smoothing=0.1)
        model.optimizers = lambda: torch.optim.SGD(net.parameters(), lr=0.1)
        with torch.no_grad():
            loss = model.training_step((images, targets), 0)
            output = net(images)
            main, aux1, aux2 = (model.loss(logits, targets) for logits in (output.logits, *output.aux_logits))
        torch.testing.assert_close(loss, main + weight * (aux1 + aux2))
        torch.testing.assert_close(model.step_metrics["train/loss"], main)
        expected[weight] = loss
    assert expected[0.3] > expected[0.0]


def test_a_state_without_heads_does_not_need_them():
    """What evaluation depends on is all in the state of the network without heads."""
    torch.manual_seed(0)
    with_heads, without = CIFARGoogLeNet(width=4).eval(), CIFARGoogLeNet(width=4, aux_heads=False).eval()
    loaded = without.load_state_dict(with_heads.state_dict(), strict=False)
    assert loaded.missing_keys == []
    assert all(key.startswith("aux") for key in loaded.unexpected_keys)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(with_heads(images), without(images))


def test_an_exported_network_has_no_heads():
    net = CIFARGoogLeNet(width=4, batch_norm=False).eval()
    exported = torch.export.export(net, (torch.randn(2, 3, 32, 32),))
    used = set(exported.graph_signature.inputs_to_parameters.values())
    graph = {str(node.name) for node in exported.graph.nodes if node.op == "placeholder" and node.users}
    read = {
        parameter
        for placeholder, parameter in exported.graph_signature.inputs_to_parameters.items()
        if placeholder in graph
    }
    assert "fc.weight" in read <= used
    assert not any(name.startswith("aux") for name in read)


def test_activations_stay_channels_last():
    net = CIFARGoogLeNet(width=4).to(memory_format=torch.channels_last)
    outputs = []
    for module in net.modules():
        if isinstance(module, InceptionModule):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    net(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last))
    assert len(outputs) == 9
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in outputs if min(y.shape[2:]) > 1)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CIFARGoogLeNet(width=6), "multiple of 4"),
        (lambda: CIFARGoogLeNet(modules_per_stage=(1, 2, 1)), "aux_heads: false"),
        (lambda: CIFARGoogLeNet(modules_per_stage=(0, 3, 1)), "each stage"),
    ],
)
def test_settings_that_make_no_network_are_explained(build, words):
    with pytest.raises(NetworkError, match=words):
        build()


@pytest.mark.parametrize("name", ["original", "small"])
def test_its_links_are_the_network(name):
    torch.manual_seed(0)
    net = NETS[name]().eval()
    images = torch.randn(2, net.conv1.conv.in_channels, 64, 64)
    x = images
    for link in links(net):
        x = link.forward(x)
    assert torch.equal(x, net(images))
    removable = [link.name for link in links(net) if link.removable]
    expected = {"original": "4b 4c 5a", "small": "3b 4b 4c 4d 4e 5b"}[name].split()
    assert removable == [f"inception{letter}" for letter in expected]


def test_dropout_and_response_normalisation_are_those_of_the_paper():
    with torch.device("meta"):
        net = GoogLeNet(batch_norm=False)
    assert [net.dropout.p, net.aux1.dropout.p, net.aux2.dropout.p] == [0.4, 0.7, 0.7]
    assert {(norm.size, norm.alpha, norm.beta) for norm in (net.norm1, net.norm2)} == {(5, 1e-4, 0.75)}
