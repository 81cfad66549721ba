"""What every network of ``lit_models/networks`` keeps to; a new file there is covered without being listed."""

import torch
from torch import nn

from lit_models import ImageClassifier, load_checkpoint
from lit_models.checkpoints import write_atomically
from lit_models.interfaces import LinkedNetwork, LogitsWithAux, Reparameterizable
from lit_models.settings import as_setting
from lit_models.surgery.reparameterize import logit_difference, merged_copy


def images(network, count=2):
    side = network.image_size
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))


def trained(network):
    """In evaluation mode, with statistics and scales other than 0 and 1."""
    torch.manual_seed(0)
    net = network.build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def test_logits_of_any_number_of_classes_and_channels(any_network):
    side = any_network.image_size
    for num_classes, in_channels in ((10, 1), (3, 3)):
        with torch.device("meta"):
            net = any_network.build(num_classes=num_classes, in_channels=in_channels)
            x = torch.empty(2, in_channels, side, side)
        output = net.train()(x)
        for logits in (output.logits, *output.aux_logits) if isinstance(output, LogitsWithAux) else (output,):
            assert logits.shape == (2, num_classes)
        assert net.eval()(x).shape == (2, num_classes)


def test_what_depends_on_the_number_of_classes_is_known_as_a_classifier(any_network):
    with torch.device("meta"):
        net, other = any_network.build(), any_network.build(num_classes=3)
    heads = [net.get_classifier(), *map(net.get_submodule, getattr(net, "heads", {}).values())]
    known = {id(p) for head in heads for p in head.parameters()}
    dependent = [p for p, q in zip(net.parameters(), other.parameters(), strict=True) if p.shape != q.shape]
    assert dependent
    assert {id(p) for p in dependent} <= known


def test_every_parameter_is_trained(small_network):
    torch.manual_seed(0)
    net = small_network.build()
    output = net(images(small_network, 4))
    logits = [output.logits, *output.aux_logits] if isinstance(output, LogitsWithAux) else [output]
    sum(one.square().sum() for one in logits).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@torch.no_grad()
def test_a_checkpoint_of_a_classifier_made_in_python_is_enough(small_network, tmp_path):
    net, x = trained(small_network), images(small_network)
    model = ImageClassifier(net, 10).eval()
    content = {"hyper_parameters": dict(model.hparams), "pytorch-lightning_version": "2.6"}
    write_atomically({**content, "state_dict": model.state_dict()}, tmp_path / "net.ckpt")
    loaded = load_checkpoint(tmp_path / "net.ckpt")
    assert type(loaded.net) is type(net)
    assert torch.equal(loaded(x), model(x))


def test_the_constructor_arguments_are_known(any_network):
    with torch.device("meta"):
        described = as_setting(any_network.build())
    assert described["class_path"].startswith("lit_models.networks.")
    assert described["init_args"] == any_network.build.keywords


@torch.no_grad()
def test_links_are_the_network_bit_for_bit(small_network):
    net = trained(small_network)
    if not isinstance(net, LinkedNetwork):
        return
    x = first = images(small_network)
    for link in net.links():
        x = link.forward(x)
    assert torch.equal(x, net(first))


def test_a_merged_network_can_be_built_and_gives_the_same_logits(small_network):
    net = trained(small_network)
    if not isinstance(net, Reparameterizable):
        return
    if hasattr(net, "set_activation_lambda"):
        net.set_activation_lambda(1.0)
    merged = merged_copy(net)
    with torch.device("meta"):
        built = small_network.build(reparameterized=True)
    assert {name: value.shape for name, value in built.state_dict().items()} == {
        name: value.shape for name, value in merged.state_dict().items()
    }
    assert logit_difference(net, merged, images(small_network))[1] < 1e-4


def test_a_network_has_the_mode_it_is_given(small_network):
    net = small_network.build()
    assert net.training
    with torch.no_grad():
        assert torch.equal(*(net.eval()(images(small_network)) for _ in range(2)))
