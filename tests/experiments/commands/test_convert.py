"""Official VanillaNet weights, in and out.

The authors' network is written down here once more, as operations on their names, to compare logits with.
"""

import argparse
import os
import zipfile
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from experiments.commands.convert import vanillanet
from lit_models import CheckpointError, VanillaNet, load_checkpoint
from lit_models.checkpoints import classifier_checkpoint, write_atomically

WIDTHS, STRIDES, CLASSES = [8, 16, 32, 64, 64], [2, 2, 2, 1], 5


def batch_norm(channels):
    return {
        "weight": torch.rand(channels) + 0.5,
        "bias": torch.randn(channels),
        "running_mean": torch.randn(channels),
        "running_var": torch.rand(channels) + 0.5,
        "num_batches_tracked": torch.tensor(7),
    }


def conv(c_in, c_out, width=1):
    return {"weight": torch.randn(c_out, c_in, width, width) / c_in**0.5, "bias": torch.randn(c_out)}


def official_training_weights(order):
    torch.manual_seed(0)
    width = WIDTHS[0]
    layers = {
        "stem1.0": conv(3, width, 4),
        "stem1.1": batch_norm(width),
        "stem2.0": conv(width, width),
        "stem2.1": batch_norm(width),
        "cls1.2": conv(WIDTHS[-1], CLASSES),
        "cls1.3": batch_norm(CLASSES),
        "cls2.0": conv(CLASSES, CLASSES),
    }
    for i, (c_in, c_out) in enumerate(pairwise(WIDTHS)):
        layers[f"stages.{i}.conv1.0"], layers[f"stages.{i}.conv1.1"] = conv(c_in, c_in), batch_norm(c_in)
        layers[f"stages.{i}.conv2.0"], layers[f"stages.{i}.conv2.1"] = conv(c_in, c_out), batch_norm(c_out)
    for name, channels in [("stem2.2", width), *((f"stages.{i}.act", c) for i, c in enumerate(WIDTHS[1:]))]:
        layers[name] = {"weight": torch.randn(channels, 1, 2 * order + 1, 2 * order + 1)}
        layers[f"{name}.bn"] = batch_norm(channels)
    return {f"{layer}.{name}": value for layer, values in layers.items() for name, value in values.items()}


def official_merged_weights(order):
    torch.manual_seed(1)
    width = 2 * order + 1

    def series(channels):
        return {"weight": torch.randn(channels, 1, width, width), "bias": torch.randn(channels)}

    layers = {"stem.0": conv(3, WIDTHS[0], 4), "stem.1": series(WIDTHS[0]), "cls.2": conv(WIDTHS[-1], CLASSES)}
    for i, (c_in, c_out) in enumerate(pairwise(WIDTHS)):
        layers[f"stages.{i}.conv"], layers[f"stages.{i}.act"] = conv(c_in, c_out), series(c_out)
    return {f"{layer}.{name}": value for layer, values in layers.items() for name, value in values.items()}


def official_logits(w, images, order, activation_lambda, ada_pool=None):
    """The forward pass of the authors' network on their names, training or deploy form, in evaluation mode.

    With ``ada_pool``, the side of the maps after each block that pools, of their variant of that name.
    """
    stem = {"stride": 4} if ada_pool is None else {"stride": 3, "padding": 1}
    sides = iter(ada_pool or ())

    def pool(x, stride):
        if stride == 1:
            return x
        return F.max_pool2d(x, stride) if ada_pool is None else F.adaptive_max_pool2d(x, next(sides))

    def convolve(x, layer, **options):
        return F.conv2d(x, w[f"{layer}.weight"], w[f"{layer}.bias"], **options)

    def norm(x, layer):
        parameters = (w[f"{layer}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parameters, eps=1e-6)

    def act(x, layer):
        kernel, channels = w[f"{layer}.weight"], x.shape[1]
        x = F.conv2d(F.relu(x), kernel, w.get(f"{layer}.bias"), padding=order, groups=channels)
        return norm(x, f"{layer}.bn") if f"{layer}.bn.weight" in w else x

    def leaky(x):
        return F.leaky_relu(x, activation_lambda)

    if "cls.2.weight" in w:
        x = act(convolve(images, "stem.0", **stem), "stem.1")
    else:
        x = leaky(norm(convolve(images, "stem1.0", **stem), "stem1.1"))
        x = act(norm(convolve(x, "stem2.0"), "stem2.1"), "stem2.2")
    for i, stride in enumerate(STRIDES):
        if "cls.2.weight" in w:
            x = convolve(x, f"stages.{i}.conv")
        else:
            x = leaky(norm(convolve(x, f"stages.{i}.conv1.0"), f"stages.{i}.conv1.1"))
            x = norm(convolve(x, f"stages.{i}.conv2.0"), f"stages.{i}.conv2.1")
        x = act(pool(x, stride), f"stages.{i}.act")
    x = x.mean((2, 3), keepdim=True)
    if "cls.2.weight" in w:
        return convolve(x, "cls.2").flatten(1)
    return convolve(leaky(norm(convolve(x, "cls1.2"), "cls1.3")), "cls2.0").flatten(1)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("wrap", ["top", "model", "model_ema", "args"])
@pytest.mark.parametrize("form", [official_training_weights, official_merged_weights])
def test_official_weights_give_the_official_logits_and_come_back_unchanged(form, wrap, order, tmp_path):
    weights = form(order)
    file = {
        "top": weights,
        "model": {"model": weights, "epoch": 299},
        "model_ema": {"model": form(order + 1), "model_ema": weights, "epoch": 299},
        "args": {"model": weights, "args": argparse.Namespace(lr=1e-3, model="vanillanet_6")},
    }[wrap]
    torch.save(file, tmp_path / "official.pth")
    activation_lambda = 1.0 if form is official_merged_weights else 0.25
    vanillanet(
        tmp_path / "official.pth",
        tmp_path / "ours.ckpt",
        weights="model_ema" if wrap == "model_ema" else None,
        activation_lambda=activation_lambda,
    )
    model, images = load_checkpoint(tmp_path / "ours.ckpt"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = official_logits(weights, images, order, activation_lambda)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-3)
    assert model.hparams["net"]["init_args"]["series_order"] == order

    vanillanet(tmp_path / "ours.ckpt", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


@pytest.mark.parametrize("size", [96, 224, 256])
def test_the_ada_pool_variant_pools_to_fixed_sizes(size, tmp_path):
    weights = official_training_weights(3)
    torch.save(weights, tmp_path / "official.pth")
    vanillanet(tmp_path / "official.pth", tmp_path / "ours.ckpt", adaptive_pool=True)
    model, images = load_checkpoint(tmp_path / "ours.ckpt"), torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = official_logits(weights, images, 3, 1.0, ada_pool=(38, 19, 10))
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-3)


def test_an_existing_destination_is_not_overwritten(tmp_path):
    torch.save(official_training_weights(3), tmp_path / "official.pth")
    (tmp_path / "ours.ckpt").write_text("precious")
    with pytest.raises(MisconfigurationException, match=r"ours\.ckpt exists"):
        vanillanet(tmp_path / "official.pth", tmp_path / "ours.ckpt")
    assert (tmp_path / "ours.ckpt").read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [
        {"weight": torch.zeros(1)},
        [1, 2],
        {**official_training_weights(3), "stem1.7.weight": torch.zeros(1)},
        {name: value for name, value in official_training_weights(3).items() if name != "stem1.0.bias"},
    ],
)
def test_other_files_are_refused_by_name(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        vanillanet(tmp_path / "other.pth", tmp_path / "ours.ckpt")
    assert not (tmp_path / "ours.ckpt").exists()


def test_a_checkpoint_of_another_network_has_no_official_names(tmp_path):
    write_atomically({"state_dict": {"net.fc.weight": torch.zeros(2, 2)}, "hyper_parameters": {}}, tmp_path / "r.ckpt")
    with pytest.raises(CheckpointError, match=r"r\.ckpt"):
        vanillanet(tmp_path / "r.ckpt", tmp_path / "official.pth")


@pytest.fixture
def official_file(tmp_path):
    """A file as official training writes it, with the optimizer's learning rates in scalars of a NumPy."""

    def write(numpy_version=2, **more):
        path, args = tmp_path / "official.pth", {"decay_epochs": 100, "decay_linear": True, "drop": 0.05}
        content = {
            "model": official_training_weights(3),
            "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
            "scaler": {"scale": 1.0},
            "epoch": 50,
            "args": argparse.Namespace(**args | {"model": "vanillanet_6"} | more.pop("args", {})),
        }
        torch.save(content | more, path)
        names = {1: b"numpy.core.multiarray", 2: b"numpy._core.multiarray"}
        repickled(path, names[3 - numpy_version], names[numpy_version])
        return path

    return write


def repickled(path, old, new):
    """The file with another name in its pickle."""
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records:
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("numpy_version", [1, 2])
def test_what_official_training_writes_is_taken_with_what_it_says(numpy_version, official_file, tmp_path):
    path = official_file(numpy_version)
    name = {1: b"numpy.core.multiarray", 2: b"numpy._core.multiarray"}[numpy_version]
    with zipfile.ZipFile(path) as archive:
        assert name in archive.read("official/data.pkl")
    vanillanet(path, tmp_path / "ours.ckpt")
    model, images = load_checkpoint(tmp_path / "ours.ckpt"), torch.randn(2, 3, 64, 64)
    assert model.net.activation_lambda.item() == 0.5
    assert model.net.dropout.p == 0.05
    with torch.no_grad():
        expected = official_logits(official_training_weights(3), images, 3, 0.5)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"epoch": 0}, 0.0),
        ({"epoch": 100}, 1.0),
        ({"epoch": 299}, 1.0),
        ({"epoch": 25, "args": {"decay_linear": False}}, 0.5 * (1 - 0.5**0.5)),
        ({"epoch": "best"}, 1.0),
        ({"args": {"decay_epochs": 0}}, 1.0),
    ],
)
def test_lambda_is_that_of_the_epoch(more, expected, official_file, tmp_path):
    vanillanet(official_file(**more), tmp_path / "ours.ckpt")
    assert load_checkpoint(tmp_path / "ours.ckpt").net.activation_lambda.item() == pytest.approx(expected)


def test_what_is_given_wins_over_what_the_file_says(official_file, tmp_path):
    path = official_file(args={"model": "vanillanet_13_x1_5_ada_pool"})
    vanillanet(path, tmp_path / "file.ckpt")
    vanillanet(path, tmp_path / "given.ckpt", adaptive_pool=False, activation_lambda=0.25)
    assert load_checkpoint(tmp_path / "file.ckpt").hparams["net"]["init_args"]["adaptive_pool"]
    given = load_checkpoint(tmp_path / "given.ckpt")
    assert not given.hparams["net"]["init_args"]["adaptive_pool"]
    assert given.net.activation_lambda.item() == 0.25


def test_of_live_and_averaged_weights_one_has_to_be_chosen(official_file, tmp_path):
    averaged = {name: value + 1 for name, value in official_training_weights(3).items()}
    path = official_file(model_ema=averaged)
    with pytest.raises(
        CheckpointError, match=r"live weights .* averaged ones .*--weights model_ema, or --weights model"
    ):
        vanillanet(path, tmp_path / "ours.ckpt")
    for name, expected in (("model", official_training_weights(3)), ("model_ema", averaged)):
        vanillanet(path, tmp_path / f"{name}.ckpt", weights=name)
        bias = load_checkpoint(tmp_path / f"{name}.ckpt").net.head.second.bias
        assert torch.equal(bias, expected["cls2.0.bias"])
    with pytest.raises(CheckpointError, match="holds no model_ema: leave out --weights"):
        vanillanet(official_file(), tmp_path / "none.ckpt", weights="model_ema")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("value", [Malicious(), np.array([0.1]), np.float32(0.1)], ids=["code", "array", "float32"])
def test_nothing_else_is_let_in_and_no_advice_of_torch_comes_out(value, official_file, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = official_file(optimizer=value)
    code, sentence = fathom("convert", "vanillanet", path, tmp_path / "ours.ckpt")
    assert code == 1
    assert sentence.startswith(f"{path} ")
    assert not any(word in sentence for word in ("\x1b", "weights_only", "option"))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ours.ckpt").exists()


@pytest.mark.parametrize("missing", ["cls2.0.weight", "stem1.0.weight", "stages.3.conv2.0.weight", "stem2.2.weight"])
def test_weights_that_lack_some_are_refused(missing, tmp_path):
    weights = {name: value for name, value in official_training_weights(3).items() if name != missing}
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        vanillanet(tmp_path / "other.pth", tmp_path / "ours.ckpt")


def ours(path, **arguments):
    arguments = {"num_classes": 4, "depth": 6, "width": 4} | arguments
    net = VanillaNet(**arguments)
    net.set_activation_lambda(0.25)
    write_atomically(classifier_checkpoint(net, arguments), path)


def test_lambda_that_no_official_file_holds_is_told(tmp_path, capsys):
    ours(tmp_path / "ours.ckpt")
    vanillanet(tmp_path / "ours.ckpt", tmp_path / "official.pth")
    assert "without their λ of 0.25: call change_act(0.25)" in capsys.readouterr().out


@pytest.mark.parametrize("stem", [{"stem_kernel": 2, "stem_stride": 2}, {"stem_stride": 2}])
def test_a_stem_that_no_official_network_has_is_told(stem, tmp_path):
    ours(tmp_path / "ours.ckpt", **stem)
    with pytest.raises(CheckpointError, match="official VanillaNets have a 4×4 one of stride 4"):
        vanillanet(tmp_path / "ours.ckpt", tmp_path / "official.pth")
    assert not (tmp_path / "official.pth").exists()


FINE_TUNING = """
model:
  class_path: lit_models.ImageClassifier
  init_args:
    net: {{class_path: lit_models.VanillaNet, init_args: {{depth: 6, width: 8}}}}
    lr: 1e-3
    optimizer: adamw
    layer_decay: 0.8
    head_lr_scale: 10
data:
  class_path: datamodules.SmallImages
  init_args: {{root: {root}, image_size: 64, batch_size: 16}}
trainer:
  max_epochs: 2
  enable_progress_bar: false
  callbacks:
    - {{class_path: callbacks.FrozenStages, init_args: {{stages: 1, norm: {norm}}}}}
    - {{class_path: callbacks.MergeAtFitEnd}}
wandb: {{mode: disabled}}
"""


@pytest.mark.parametrize("norm", ["train", "statistics", "frozen"])
def test_official_weights_are_fine_tuned_and_merged(norm, official_file, digits_folder, tmp_path, fathom):
    path = official_file(epoch=299)
    (tmp_path / "tuning.yaml").write_text(FINE_TUNING.format(root=digits_folder, norm=norm))
    words = ("--model.weights", path, "--trainer.default_root_dir", tmp_path / "runs")
    assert fathom("fit", "--config", tmp_path / "tuning.yaml", *words) == (0, "")
    (run,) = (tmp_path / "runs" / "tuning").iterdir()
    assert (run / "merged.ckpt").is_file()  # λ came with the file
    tuned = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert tuned.hparams["mean"] == pytest.approx((0.485, 0.456, 0.406))
    official = official_training_weights(3)
    ours = {name.removeprefix("net."): value for name, value in tuned.state_dict().items()}
    assert ours["head.second.weight"].shape[0] == 2

    def is_kept(layer, theirs):
        pairs = ((f"{layer}.{name}", f"{theirs}.{name}") for name in ("weight", "bias", "running_mean"))
        return [torch.equal(ours[a], official[b]) for a, b in pairs if b in official]

    assert is_kept("stem.convs.first.0", "stem1.0") == [True, True]
    assert is_kept("stem.activation.bn", "stem2.2.bn") == [True, True, True]
    assert is_kept("blocks.1.convs.first.0", "stages.1.conv1.0") == [False, False]
    learned = norm != "frozen"
    assert is_kept("blocks.1.convs.first.1", "stages.1.conv1.1") == [not learned, not learned, norm != "train"]
