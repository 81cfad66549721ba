"""Our networks as timm builds them."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from lit_models import CIFARResNet, GoogLeNet, TimmBackbone, VanillaNet
from lit_models.cost import count_parameters
from lit_models.networks.timm_registry import NETWORKS, register_with_timm

NARROW = {
    **{name: {"width": 8} for name in NETWORKS if name.startswith(("vanillanet", "resnet"))},
    **{name: {} for name in NETWORKS if name.startswith("googlenet")},
}
"""Arguments with which each network is small enough to be run."""


def small(name, **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, **NARROW[name], **arguments)


def side(name):
    return 32 if name.endswith("cifar") else 96


def images(name, count=2, channels=3):
    return torch.randn(count, channels, side(name), side(name), generator=torch.Generator().manual_seed(1))


def test_every_network_is_listed():
    names = set(timm.list_models())
    assert len(NETWORKS) == 19
    assert names >= set(NETWORKS)
    assert {*(f"vanillanet_{depth}" for depth in range(5, 14)), "googlenet", "resnet20_cifar"} <= set(NETWORKS)


def test_timms_own_names_stay_timms(monkeypatch):
    entrypoints = timm.models._registry._model_entrypoints
    assert all(entrypoints[name].__module__ == "lit_models.networks.timm_registry" for name in NETWORKS)
    monkeypatch.setitem(NETWORKS, "resnet18", NETWORKS["resnet20_cifar"])
    register_with_timm()
    assert entrypoints["resnet18"].__module__ == "timm.models.resnet"


def test_registering_twice_changes_nothing():
    before = dict(timm.models._registry._model_entrypoints)
    register_with_timm()
    assert before == timm.models._registry._model_entrypoints


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vanillanet_5", 22_328_800), ("googlenet", 6_998_552), ("googlenet_torchvision", 6_624_904)],
)
def test_they_are_full_networks(name, parameters):
    with torch.device("meta"):
        assert count_parameters(timm.create_model(name)) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_classes_and_features(name):
    net = small(name, num_classes=7).eval()
    x = images(name)
    features = net.forward_features(x)
    pooled = net.forward_head(features, pre_logits=True)
    assert features.shape[:2] == pooled.shape == (2, net.num_features)
    assert net.num_classes == 7
    assert net(x).shape == (2, 7)
    assert net(x).std() > 0  # fresh logits of a VanillaNet are tiny: equal, not close
    assert torch.equal(net.forward_head(features), net(x))
    assert any(p is q for p in net.get_classifier().parameters() for q in net.parameters())
    net.reset_classifier(3)
    assert net(x).shape == (2, 3)
    net.reset_classifier(0)
    assert torch.equal(net(x), pooled)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_only_are_those_the_network_computes(name):
    net = small(name, features_only=True).eval()
    x = images(name)
    maps = net(x)
    assert [m.shape[1] for m in maps] == net.feature_info.channels()
    if "ada_pool" in name:  # fixed, but for the stem's
        assert [m.shape[-1] for m in maps] == [32, 38, 19, 10]
    else:
        assert [side(name) // m.shape[-1] for m in maps] == net.feature_info.reduction()
    whole = small(name).eval()
    whole.load_state_dict(net["body"].state_dict(), strict=False)
    assert maps[-1].std() > 0
    assert torch.equal(maps[-1], whole.forward_features(x))
    assert len(small(name, features_only=True, out_indices=(1, 2))(x)) == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    net = small(name, num_classes=5, in_chans=1)
    net(images(name, count=4, channels=1)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["vanillanet_6", "googlenet_bn", "resnet20_cifar"])
def test_checkpoints_of_timm_and_safetensors_go_round(name, tmp_path):
    net = small(name, num_classes=5)
    net(images(name))  # batch statistics of its own
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    for file in ("net.safetensors", "net.pth"):
        loaded = small(name, num_classes=5, checkpoint_path=str(tmp_path / file))
        assert torch.equal(loaded.eval()(images(name)), net.eval()(images(name)))
    family, arguments = NETWORKS[name]
    same = family.network(num_classes=5, **(arguments | NARROW[name]))
    same.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(same.eval()(images(name)), net(images(name)))


@pytest.mark.parametrize("name", ["vanillanet_6", "googlenet_bn", "resnet20_cifar"])
def test_a_backbone_from_a_file_with_a_new_classifier(name, tmp_path):
    net = small(name, num_classes=5)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    path = str(tmp_path / "net.safetensors")
    backbone = TimmBackbone(name, 3, pretrained=path, frozen=True, model_args=NARROW[name])
    assert backbone(images(name)).shape == (2, 3)
    torch.testing.assert_close(backbone.model.forward_features(images(name)), net.eval().forward_features(images(name)))
    trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith(("fc.", "head.")) for name in trained)


def test_timms_dropout_is_ours():
    assert small("googlenet", drop_rate=0.0).dropout.p == 0
    assert small("vanillanet_5", drop_rate=0.1).dropout.p == 0.1
    assert small("resnet20_cifar", drop_rate=0.1).dropout.p == 0.1
    assert small("googlenet").drop_rate == 0.4
    net = small("resnet20_cifar", drop_rate=0.9, num_classes=0)
    assert (net(images("resnet20_cifar")) == 0).float().mean() > 0.5


def test_no_weights_are_pretended():
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model("resnet20_cifar", pretrained=True)


def test_classes_are_our_own():
    assert isinstance(small("vanillanet_6"), VanillaNet)
    assert isinstance(small("googlenet"), GoogLeNet)
    assert isinstance(small("resnet20_cifar"), CIFARResNet)
