"""What timm's own tests ask of every model, asked of ours, and what its scripts do with them."""

import copy
import math
import pickle
from functools import cache, partial

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import group_parameters
from timm.utils import reparameterize_model
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from lit_models.errors import NetworkError
from lit_models.interfaces import Reparameterizable
from lit_models.networks.timm_registry import NETWORKS

ONE_OF_EACH = ["vanillanet_6", "vanillanet_13_x1_5_ada_pool", "googlenet_bn", "resnet20_cifar"]
POOL_SIZES = {"vanillanet_13_x1_5_ada_pool": 10, **{name: 8 for name in NETWORKS if name.endswith("cifar")}}
every_network = pytest.mark.parametrize("name", NETWORKS)
one_of_each = pytest.mark.parametrize("name", ONE_OF_EACH)


def small(name, **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, **({} if name.startswith("googlenet") else {"width": 4}), **arguments)


def images(name, count=2, channels=3):
    side = 32 if name.endswith("cifar") else 64
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


@cache
def trained_once(name):
    """Statistics that belong to the images, so that the maps of a deep network do not vanish."""
    net = small(name)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net(images(name, 8))
    return net.eval()


def trained(name):
    return copy.deepcopy(trained_once(name))


def relative(x, y):
    return ((x - y).abs().max() / y.abs().max()).item()


@every_network
def test_the_description_is_that_of_the_network(name):
    on_meta = partial(timm.create_model, name, device="meta", dtype=torch.float32)
    net = on_meta().eval()
    described = net.default_cfg
    side = POOL_SIZES.get(name, 7)
    assert described["pool_size"] == (side, side)
    assert net.in_chans == described["input_size"][0] == 3
    assert net.num_classes == described["num_classes"]
    parameters = dict(net.named_parameters())
    classifier = described["classifier"]
    for layer in (described["first_conv"], *([classifier] if isinstance(classifier, str) else classifier)):
        assert f"{layer}.weight" in parameters
    assert {p.device.type for p in (*net.parameters(), *net.buffers())} == {"meta"}
    assert parameters[f"{described['first_conv']}.weight"].dtype == torch.float32

    x = torch.empty(1, *described["input_size"], device="meta")
    maps = (1, net.num_features, side, side)
    features = net.forward_features(x)
    assert features.shape == maps
    assert net.forward_head(features, pre_logits=True).shape == (1, net.head_hidden_size)
    assert net.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert on_meta(num_classes=0).eval()(x).shape == (1, net.head_hidden_size)
    assert on_meta(num_classes=0, global_pool="").eval()(x).shape == maps


@every_network
def test_resetting_the_classifier_keeps_device_data_type_and_mode(name):
    net = timm.create_model(name, device="meta", dtype=torch.float64).eval()
    x = torch.empty(1, *net.default_cfg["input_size"], device="meta", dtype=torch.float64)
    for classes in (0, 2):
        net.reset_classifier(classes)
        assert net.num_classes == classes
        assert net(x).shape == (1, classes or net.num_features)
        assert not any(module.training for module in net.modules())
    classifier = net.get_classifier()
    assert net.get_submodule(net.get_classifier(name_only=True)) is classifier
    assert (classifier.in_features, classifier.out_features) == (net.num_features, 2)
    assert {(p.device.type, p.dtype) for p in classifier.parameters()} == {("meta", torch.float64)}
    net.reset_classifier(0, "")
    assert net(x).shape == net.forward_features(x).shape
    net.requires_grad_(False).reset_classifier(0)
    assert not any(p.requires_grad for p in net.parameters())


def test_arguments_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="not_an_argument"):
        small("vanillanet_5", not_an_argument=1)
    with pytest.raises(NetworkError, match="global_pool is avg"):
        small("googlenet", global_pool="max")
    with pytest.raises(NetworkError, match="num_classes to 0"):
        small("resnet20_cifar", global_pool="")
    with pytest.raises(NetworkError, match="num_classes to 0"):
        small("resnet20_cifar").reset_classifier(10, "")
    with pytest.raises(NetworkError, match="hook, getter or fx"):
        small("resnet20_cifar", features_only=True, feature_cls="list")


@every_network
def test_intermediates_are_the_maps_of_each_stage(name):
    net, x = small(name).eval(), images(name)
    with torch.no_grad():
        features, maps = net.forward_intermediates(x)
        assert torch.equal(features, net.forward_features(x))
        assert torch.equal(features, maps[-1])
        last = net.forward_intermediates(x, indices=[0, -1], intermediates_only=True)
    assert [m.shape[1] for m in maps] == [stage["num_chs"] for stage in net.feature_info]
    for stage, m in zip(net.feature_info, maps, strict=True):
        if "ada_pool" in name:  # maps of one size, whatever the images
            continue
        assert x.shape[-1] / (2 * stage["reduction"]) < m.shape[-1] <= math.ceil(x.shape[-1] / stage["reduction"]) + 1
    assert torch.equal(last[0], maps[0])
    assert torch.equal(last[1], maps[-1])
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(NetworkError, match="NCHW"):
        net.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "googlenet"])
@pytest.mark.parametrize("feature_cls", ["getter", "hook", "fx"])
@torch.no_grad()
def test_every_extractor_gives_the_intermediates(name, feature_cls):
    net, x = trained(name), images(name)
    extractor = small(name, features_only=True, feature_cls=feature_cls).eval()
    holder = {"getter": "model", "hook": "body", "fx": "graph_module"}[feature_cls]
    extractor.get_submodule(holder).load_state_dict(net.state_dict(), strict=False)
    for got, expected in zip(extractor(x), net.forward_intermediates(x, intermediates_only=True), strict=True):
        assert relative(got, expected) < 1e-5


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "googlenet"])
def test_pruned_networks_end_in_the_last_map_that_is_asked_for(name):
    _assert_prunes(trained(name), images(name))


def test_pruned_preactivation_networks_end_without_their_last_normalisation():
    _assert_prunes(small("resnet20_cifar", preactivation=True).eval(), images("resnet20_cifar"))


def _assert_prunes(net, x):
    logits, maps = net(x), net.forward_intermediates(x, intermediates_only=True)
    whole = copy.deepcopy(net)
    assert whole.prune_intermediate_layers([-1], prune_head=False) == [len(maps) - 1]
    assert torch.equal(whole(x), logits)
    with pytest.raises(NetworkError, match="last stage"):
        whole.prune_intermediate_layers([0], prune_head=False)
    for i, expected in enumerate(maps):
        pruned = copy.deepcopy(net)
        assert pruned.prune_intermediate_layers([i]) == [i]
        assert torch.equal(pruned.forward_intermediates(x, [i], intermediates_only=True)[0], expected)
        assert torch.equal(pruned(x), expected)
        pruned.train()(x).sum().backward()
        assert all(p.grad is not None for p in pruned.parameters())
        pruned.reset_classifier(3)
        assert pruned.eval()(x).shape == (len(x), 3)
        assert pruned.feature_channels[-1] == pruned.num_features == expected.shape[1]


def test_pruned_networks_drop_the_blocks_they_have():
    net = small("resnet20_cifar", drop_path_rate=0.9)
    net.prune_intermediate_layers([0])
    assert list(net.survival_probs) == list(net.residual_blocks()) == ["layer1.0", "layer1.1", "layer1.2"]
    net(images("resnet20_cifar"))


@one_of_each
def test_a_traced_network_computes_and_learns_as_the_network_does(name):
    net, x = trained(name), images(name)
    _, last = (nodes[-1] for nodes in get_graph_node_names(net))
    traced = create_feature_extractor(net, [last])
    for graph in (fx.symbolic_trace(net), lambda x: traced(x)[last]):
        assert torch.equal(graph(x), net(x))
    traced.train()(x)[last].mean().backward()
    assert all(p.grad is not None for p in traced.parameters())


@pytest.mark.parametrize("name", ["vanillanet_6", "vanillanet_13_x1_5_ada_pool", "resnet20_cifar"])
@torch.no_grad()
def test_scripts_are_traced(name):
    net, x = trained(name), images(name)
    assert relative(torch.jit.script(net)(x), net(x)) < 1e-5


def test_small_images_are_refused_in_a_trace_too():
    net = small("vanillanet_6").eval()
    for network in (net, fx.symbolic_trace(net)):
        with pytest.raises(NetworkError, match="16×16 pixels vanish"):
            network(torch.zeros(1, 3, 16, 16))


@one_of_each
def test_gradient_checkpointing_changes_no_gradient(name):
    net, x = trained(name), images(name)
    checkpointed = copy.deepcopy(net)
    checkpointed.set_grad_checkpointing()
    last_block = checkpointed.get_submodule(net.links()[-2].name)
    runs = []
    next(m for m in last_block.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(lambda *_: runs.append(1))
    for network in (net, checkpointed):
        network(x).square().sum().backward()
    assert len(runs) == 2
    for p, q in zip(net.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    checkpointed.set_grad_checkpointing(False)
    assert not any("forward" in vars(module) for module in checkpointed.modules())


@one_of_each
def test_a_network_is_copied_and_pickled(name):
    net, x = trained(name), images(name)
    net.set_grad_checkpointing()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x), net(x))


@one_of_each
@torch.no_grad()
def test_weights_of_other_classes_and_channels_are_taken(name):
    net, x = trained(name), images(name)
    overlay = {"state_dict": net.state_dict()}
    whole = small(name, pretrained=True, pretrained_cfg_overlay=dict(overlay)).eval()
    assert torch.equal(whole(x), net(x))
    other = small(name, pretrained=True, num_classes=5, pretrained_cfg_overlay=dict(overlay)).eval()
    assert other(x).shape == (2, 5)
    assert torch.equal(other.forward_features(x), net.forward_features(x))
    grey = small(name, pretrained=True, num_classes=5, in_chans=1, pretrained_cfg_overlay=dict(overlay)).eval()
    same = x[:, :1].expand(-1, 3, -1, -1)
    assert relative(grey.forward_features(x[:, :1]), net.forward_features(same)) < 1e-3


@pytest.mark.parametrize("name", ["vanillanet_6", "vanillanet_13_x1_5_ada_pool", "googlenet_bn"])
@torch.no_grad()
def test_timm_reparameterizes(name):
    net, x = trained(name), images(name)
    if name.startswith("vanillanet"):
        with pytest.raises(NetworkError, match="λ is 0"):
            reparameterize_model(net)
        net.set_activation_lambda(1)
    assert isinstance(net, Reparameterizable)
    merged = reparameterize_model(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert relative(merged(x), net(x)) < 1e-3
    built = small(name, reparameterized=True).eval()
    built.load_state_dict(merged.state_dict())
    assert torch.equal(built(x), merged(x))
    assert built.feature_info == net.feature_info
    other = small(
        name,
        reparameterized=True,
        pretrained=True,
        num_classes=5,
        in_chans=1,
        pretrained_cfg_overlay={"state_dict": merged.state_dict()},
    )
    assert other(x[:, :1]).shape == (2, 5)


def test_drop_path_is_stochastic_depth():
    net, x = small("resnet20_cifar", drop_path_rate=0.5), images("resnet20_cifar")
    blocks = net.residual_blocks()
    probs = [block.survival_prob.item() for block in blocks.values()]
    assert probs == pytest.approx([1 - 0.5 * i / 9 for i in range(1, 10)])
    dropped = 0
    for _ in range(100):
        net(x)
        dropped += sum(block.gate is False for block in blocks.values())
    assert dropped / 100 == pytest.approx(9 - sum(probs), abs=0.6)  # four standard errors
    net.eval()
    assert all(block.gate is None for block in blocks.values())
    assert torch.equal(net(x), net(x))


def test_drop_path_and_checkpointing_drop_the_same_blocks():
    net, x = small("resnet20_cifar", drop_path_rate=0.9), images("resnet20_cifar")
    net.set_grad_checkpointing()
    net(x).sum().backward()
    assert any(block.gate is False for block in net.residual_blocks().values())
    for block in net.residual_blocks().values():
        assert (block.conv1.weight.grad is None) == (block.gate is False)


@pytest.mark.parametrize("name", ["vanillanet_6", "googlenet", "resnet20_cifar"])
def test_drop_path_is_refused_where_nothing_can_be_dropped(name):
    assert small(name, drop_path_rate=0.0).drop_path_rate == 0
    if name != "resnet20_cifar":
        with pytest.raises(NetworkError, match="no residual branch"):
            small(name, drop_path_rate=0.1)
    with pytest.raises(NetworkError, match="probability below 1"):
        small(name, drop_path_rate=1.0)


def test_images_are_prepared_as_the_weights_expect():
    cifar = resolve_data_config({}, model=small("resnet20_cifar"))
    assert cifar["crop_pct"] == 1
    assert cifar["mean"] == (0.4914, 0.4822, 0.4465)
    assert cifar["std"] == (0.2470, 0.2435, 0.2616)
    theirs = resolve_data_config({}, model=small("googlenet_torchvision"))
    assert theirs["mean"] == theirs["std"] == (0.5, 0.5, 0.5)
    assert resolve_data_config({}, model=small("googlenet"))["mean"] == (0.485, 0.456, 0.406)


def test_layers_are_numbered_for_layer_decay():
    net = small("vanillanet_6")
    assert len(set(group_parameters(net, net.group_matcher(), reverse=True).values())) == 6
