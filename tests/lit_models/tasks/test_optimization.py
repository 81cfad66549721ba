"""The learning rate of a batch size, and that of each layer."""

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules import Digits
from experiments.cli.read_config import read_config
from experiments.cli.recipes import config_paths
from lit_models import ImageClassifier, VanillaNet
from lit_models.tasks.optimization import make_optimizer


class RecordLearningRates(L.Callback):
    """Of every parameter group in every step."""

    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append([group["lr"] for group in optimizer.param_groups])


def fit(path, model, data, **arguments):
    record = RecordLearningRates()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options = {"enable_checkpointing": False, "limit_val_batches": 0, **quiet, **arguments}
    L.Trainer(default_root_dir=path, callbacks=[record], **options).fit(model, data)
    return record.lrs


def linear(**arguments):
    return ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 10)), 10, **arguments)


def vanillanet(depth=6):
    return VanillaNet(10, 1, depth=depth, width=4, stem_kernel=2, stem_stride=2, series_order=1)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_peak_is_scaled_to_the_images_of_a_step(schedule, tmp_path):
    """24 images: batches of 4, accumulated by 3, for a learning rate that is meant for 32."""
    model = linear(lr=0.4, lr_batch_size=32, schedule=schedule, min_lr=0.03)
    lrs = fit(tmp_path, model, Digits(batch_size=4, train_size=24), accumulate_grad_batches=3, max_epochs=2)
    assert model.peak_lr == pytest.approx(0.4 * 12 / 32)
    assert lrs[0][0] == pytest.approx(0.15)
    assert len(lrs) == 4
    # Half-way down the cosine; where it ends is not scaled.
    assert lrs[2][0] == pytest.approx((0.15 + 0.03) / 2 if schedule == "cosine" else 0.15)


def test_every_device_counts(tmp_path):
    model = linear(lr=0.1, lr_batch_size=256)
    model.trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=8, logger=False)
    model.trainer.datamodule = Digits(batch_size=128)
    assert model.peak_lr == pytest.approx(0.4)


def test_scaling_needs_a_data_module(tmp_path):
    data = DataLoader(TensorDataset(torch.randn(4, 1, 32, 32), torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(MisconfigurationException, match=r"lr_batch_size.*data module"):
        fit(tmp_path, linear(lr_batch_size=32), data, max_epochs=1)
    with pytest.raises(MisconfigurationException, match="lr_batch_size is 0"):
        linear(lr_batch_size=0)


@pytest.mark.parametrize("depth", range(5, 14))
def test_layer_decay_of_vanillanet(depth):
    """r^(N + 1 − id) with id 0 for the stem, i + 1 for block i and N + 1 for the head; decay by shape within each."""
    net, r = vanillanet(depth), 0.8
    blocks = len(net.blocks)
    optimizer = make_optimizer(net, "lamb", 2e-3, weight_decay=0.3, momentum=0.9, layer_decay=r)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(optimizer.param_groups) == 2 * (blocks + 2)
    assert len(found) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        part, number = name.split(".")[:2]
        layer = {"stem": 0, "head": blocks + 1}.get(part)
        layer = 1 + int(number) if layer is None else layer
        assert found[id(parameter)][0] == pytest.approx(2e-3 * r ** (blocks + 1 - layer)), name
        assert found[id(parameter)][1] == (0.3 if parameter.ndim > 1 else 0), name


def test_layer_decay_lasts_through_the_schedule_and_the_head_is_logged(tmp_path):
    model = ImageClassifier(vanillanet(), 10, optimizer="lamb", lr=1e-2, layer_decay=0.5, schedule="cosine")
    lrs = fit(tmp_path, model, Digits(batch_size=8, train_size=32), max_epochs=1)
    assert len(lrs) == 4
    peaks = lrs[0]
    assert (min(peaks), max(peaks)) == pytest.approx((1e-2 * 0.5**5, 1e-2))
    for step, factor in enumerate([1, 0.8535533905932737, 0.5, 0.14644660940672624]):
        assert lrs[step] == pytest.approx([peak * factor for peak in peaks])
    assert model.trainer.callback_metrics["lr"].item() == pytest.approx(1e-2 * 0.14644660940672624)


def test_layer_decay_of_a_network_of_timm():
    net = timm.create_model("resnet18", num_classes=4)
    optimizer = make_optimizer(net, "sgd", 1.0, weight_decay=1e-4, momentum=0.9, layer_decay=0.9)
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert lr[id(net.fc.weight)] == 1
    assert lr[id(net.conv1.weight)] == min(lr.values()) < lr[id(net.layer3[0].conv1.weight)] < 1


def test_layer_decay_is_refused_where_it_can_not_be():
    with pytest.raises(MisconfigurationException, match=r"layer_decay.*Sequential"):
        linear(layer_decay=0.8)
    with pytest.raises(MisconfigurationException, match=r"layer_decay is 1\.5"):
        ImageClassifier(vanillanet(), 10, layer_decay=1.5)


def fused_sgd(fused):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    return net, make_optimizer(net, "sgd", 0.1, 1e-2, momentum=0.9, fused=fused)


def test_fused_sgd_takes_parameters_whose_first_gradient_comes_later():
    """As those of a block that stochastic depth skips in the first step."""
    weights = []
    for fused in (False, True):
        net, optimizer = fused_sgd(fused)
        for step in range(4):
            optimizer.zero_grad()
            loss = (net if step else net[:1])(torch.ones(2, 3)).square().sum()
            loss.backward()
            optimizer.step()
        weights.append([weight.detach() for weight in net.parameters()])
    torch.testing.assert_close(*weights)


def test_fused_sgd_whose_first_gradients_overflow_starts_from_zero_momentum():
    net, optimizer = fused_sgd(fused=True)
    before = [weight.detach().clone() for weight in net.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    scaler.scale(net(torch.full((2, 3), torch.inf)).sum()).backward()
    scaler.step(optimizer)
    assert all(map(torch.equal, before, net.parameters()))
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())
    assert len(optimizer.state) == 4


def test_lamb_has_the_eps_that_it_is_given():
    """LAMB (You et al. 2020) written down once more, 24 steps; gradients so small that eps decides.

    VanillaNet's authors train with 1e-8, and timm's own default is 1e-6.
    """
    (path,) = config_paths("vanillanet_imagenet")
    eps, lr, decay = read_config(path)["model"]["init_args"]["optimizer_args"]["eps"], 0.01, 0.3
    assert eps == 1e-8
    torch.manual_seed(0)
    net = nn.Linear(3, 2, bias=False).double()
    weight, m, v = net.weight.detach().clone(), torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    optimizer = make_optimizer(net, "lamb", lr, decay, momentum=0.9, eps=eps)
    for step in range(1, 25):
        gradient = 1e-7 * torch.randn(2, 3, dtype=torch.float64)
        net.weight.grad = gradient.clone()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + eps) + decay * weight
        weight = weight - lr * weight.norm() / update.norm() * update
    torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("algorithm", "clipped"), [("value", 0.5), ("norm", 0.5 / 8**0.5)], ids=["value", "norm"])
def test_gradients_are_clipped_as_it_is_asked_for(algorithm, clipped):
    module = ImageClassifier(nn.Linear(3, 2), 2)
    module.trainer = L.Trainer(accelerator="cpu", logger=False)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    module.configure_gradient_clipping(torch.optim.SGD(module.parameters(), 0.1), 0.5, algorithm)
    for parameter in module.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, clipped))
