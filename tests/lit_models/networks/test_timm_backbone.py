"""Networks of timm by name: weights from files, new classifiers, frozen trunks."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from lit_models import TimmBackbone
from lit_models.errors import CheckpointError, NetworkError

SMALL = "test_efficientnet"


def images(count=2, channels=3):
    return torch.randn(count, channels, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights(tmp_path):
    """Writes the weights of a network of 1000 classes in a format: the file, the network."""

    def write(suffix):
        torch.manual_seed(1)
        net = timm.create_model(SMALL)
        path = tmp_path / f"weights.{suffix}"
        if suffix == "safetensors":
            save_file(net.state_dict(), path)
        else:
            torch.save(net.state_dict(), path)
        return path, net

    return write


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_come_from_a_local_file_with_a_new_classifier(weights, suffix):
    path, theirs = weights(suffix)
    ours = TimmBackbone(SMALL, 7, pretrained=str(path))
    theirs.reset_classifier(0)
    x = images()
    features = ours.model.forward_head(ours.eval().model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features, theirs.eval()(x))
    assert ours(x).shape == (2, 7)


def test_weights_keep_their_classifier_where_the_classes_are_as_many(weights):
    path, theirs = weights("safetensors")
    ours = TimmBackbone(SMALL, 1000, pretrained=str(path))
    torch.testing.assert_close(ours.eval()(images()), theirs.eval()(images()))


def test_first_layer_follows_the_number_of_channels(weights):
    """timm adds the weights of the colours up for grey images."""
    path, theirs = weights("pth")
    grey = TimmBackbone(SMALL, 5, in_channels=1, pretrained=str(path)).model.conv_stem.weight
    torch.testing.assert_close(grey, theirs.conv_stem.weight.sum(1, keepdim=True))


def test_a_frozen_trunk_trains_its_classifier_alone():
    torch.manual_seed(0)
    net = TimmBackbone(SMALL, 5, frozen=True)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {
        "model.classifier.weight",
        "model.classifier.bias",
    }
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for mode in (True, False, True):
        net.train(mode)
        assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(images(4)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.classifier.weight", "model.classifier.bias"}


def test_arguments_of_create_model_are_handed_over():
    net = TimmBackbone("test_vit", 5, model_args={"img_size": 32, "drop_path_rate": 0.5})
    assert net(images()).shape == (2, 5)
    assert net.model.blocks[-1].drop_path1.drop_prob == 0.5


def test_images_of_another_size_than_that_of_a_transformer_are_refused():
    net = TimmBackbone("test_vit", 5, model_args={"img_size": 64, "dynamic_img_size": False})
    for shown in (net, net.feature_maps):
        with pytest.raises(NetworkError, match=r"test_vit does not take these images: .* Change --data\.image_size"):
            shown(images())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "mobilnetv1_100"}, NetworkError, r"mobilnetv1_100'; near it are mobilenetv1_100"),
        ({"name": "§§§"}, NetworkError, "resnet50"),
        ({"name": SMALL, "pretrained": "nowhere.safetensors"}, FileNotFoundError, "nowhere.safetensors"),
    ],
)
def test_mistakes_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        TimmBackbone(num_classes=5, **arguments)


def test_weights_may_have_another_classifier_or_none(weights, tmp_path):
    _, theirs = weights("pth")
    for classes in (3, 0):
        theirs.reset_classifier(classes)
        path = tmp_path / f"{classes}.safetensors"
        save_file(theirs.state_dict(), path)
        ours = TimmBackbone(SMALL, 5, pretrained=str(path)).eval()
        torch.testing.assert_close(ours.model.forward_features(images()), theirs.eval().forward_features(images()))
        assert ours(images()).shape == (2, 5)


def test_a_missing_weight_is_named(weights, tmp_path):
    _, theirs = weights("pth")
    state = theirs.state_dict()
    del state["blocks.1.0.conv_exp.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"part.pth does not hold.*blocks.1.0.conv_exp.weight"):
        TimmBackbone(SMALL, 5, pretrained=str(tmp_path / "part.pth"))


def test_weights_of_another_network_are_named(weights):
    path, _ = weights("safetensors")
    with pytest.raises(CheckpointError, match=r"weights.safetensors does not hold the weights of test_vit"):
        TimmBackbone("test_vit", 5, pretrained=str(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code ran because a file was opened",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match=r"trap.pth does not hold the weights"):
        TimmBackbone(SMALL, 5, pretrained=str(tmp_path / "trap.pth"))


def test_weights_that_cannot_be_downloaded_are_explained(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(NetworkError, match=r"test_efficientnet.*no route to host.*local file"):
        TimmBackbone(SMALL, 5, pretrained=True)


def test_images_of_another_size_are_explained():
    with pytest.raises(NetworkError, match=r"vit_tiny_patch16_224 .*image_size"):
        TimmBackbone("vit_tiny_patch16_224", 5)(images())
