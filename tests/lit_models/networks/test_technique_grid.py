"""Deep training and series activations, each alone and together, in a residual network and in AlexNet."""

import copy

import lightning as L
import pytest
import torch
from torch import nn

from callbacks import ActivationAnnealing, MergeAtFitEnd, StochasticDepth
from datamodules import Digits
from lit_models import AnnealedCIFARResNet, CIFARAlexNet, CIFARResNet, ImageClassifier, NetworkError, load_checkpoint
from lit_models.interfaces import AnnealedActivations, Reparameterizable
from lit_models.networks.annealed import AnnealedConvs, SeriesActivation, deep_conv
from lit_models.networks.annealed_resnet import AnnealedBlock

GRID = [(deep, order) for deep in (False, True) for order in (None, 0, 3)]
NETWORKS = {
    "resnet": lambda **techniques: AnnealedCIFARResNet(8, 5, width=4, **techniques),
    "resnet, projections": lambda **techniques: AnnealedCIFARResNet(8, 5, width=4, shortcut="B", **techniques),
    "alexnet": lambda **techniques: CIFARAlexNet(5, width=4, **techniques),
}
EVERY = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
COMBINATION = pytest.mark.parametrize(("deep", "order"), GRID)


def randomised(net):
    """``net`` in float64 and evaluation mode, with statistics, scales and biases that are not those it is born with."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    return net.double().eval()


@torch.no_grad()
def merge_error(net):
    merged, images = copy.deepcopy(net), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    merged.reparameterize()
    expected = net(images)
    return ((merged(images) - expected).abs().max() / expected.abs().max()).item()


@EVERY
@COMBINATION
def test_merging_is_exact_and_leaves_single_convolutions(build, deep, order):
    net = randomised(build(deep_training=deep, series_order=order))
    assert isinstance(net, AnnealedActivations)
    assert isinstance(net, Reparameterizable)
    net.set_activation_lambda(1.0)
    assert net.activation_lambda == 1
    assert merge_error(net) <= 1e-10
    pairs = [module for module in net.modules() if isinstance(module, AnnealedConvs)]
    assert len(pairs) == (5 if isinstance(net, CIFARAlexNet) else 6)
    assert all((pair.second is not None) is deep for pair in pairs)
    series = [module for module in net.modules() if isinstance(module, SeriesActivation)]
    assert len(series) == (0 if order is None else len(pairs))
    net.reparameterize()
    assert all(isinstance(pair.first, nn.Conv2d) and pair.second is None for pair in pairs)
    built = build(deep_training=deep, series_order=order, reparameterized=True)
    once = copy.deepcopy(net.state_dict())
    net.reparameterize()
    assert built.state_dict().keys() == once.keys() == net.state_dict().keys()
    assert all(torch.equal(value, once[name]) for name, value in net.state_dict().items())


@EVERY
def test_merging_too_early_is_refused_and_would_be_wrong(build, monkeypatch):
    net = randomised(build())
    net.set_activation_lambda(0.9)
    with pytest.raises(NetworkError, match=r"λ is 0\.9"):
        net.reparameterize()
    monkeypatch.setattr("lit_models.networks.annealed.check_mergeable", lambda activation_lambda: None)
    assert merge_error(net) > 1e-2
    with pytest.raises(NetworkError, match="λ lies"):
        net.set_activation_lambda(1.5)


@EVERY
def test_without_deep_training_lambda_has_no_effect(build):
    net, images = randomised(build(deep_training=False)), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        before = net(images)
        net.set_activation_lambda(0.5)
        assert torch.equal(net(images), before)
    assert merge_error(net) <= 1e-10


def test_the_pointwise_convolution_comes_second_as_padding_asks():
    """The other order is off by W₂b₁ at the border, and in no pixel of the middle."""
    pair = randomised(deep_conv(nn.Conv2d(3, 3, 3, padding=1, bias=False), True))
    x, one = torch.randn(1, 3, 6, 6, dtype=torch.float64), torch.tensor(1.0)
    with torch.no_grad():
        expected = pair(x, one)
        pair.merge()
        torch.testing.assert_close(pair(x, one), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_residual_network_without_either_technique_is_the_plain_one():
    plain = randomised(CIFARResNet(8, 5, width=4))
    net = AnnealedCIFARResNet(8, 5, width=4, deep_training=False, series_order=None).double().eval()
    for name, block in plain.residual_blocks().items():
        annealed_block = net.get_submodule(name)
        annealed_block.conv1.first = nn.Sequential(block.conv1, block.bn1)
        annealed_block.conv2.first = nn.Sequential(block.conv2, block.bn2)
        assert annealed_block.transition is block.transition
    net.conv1, net.bn1, net.fc = plain.conv1, plain.bn1, plain.fc
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(net(images), plain(images))
    bns = [
        module for module in AnnealedCIFARResNet(8, series_order=None).modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert {bn.eps for bn in bns} == {plain.bn1.eps}


@torch.no_grad()
def test_a_skipped_block_leaves_its_shortcut_and_its_activation():
    block = randomised(AnnealedBlock(4, 4))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    before = x.clone()
    block.gate = False
    assert torch.equal(block(x), block.act2(x))
    assert torch.equal(x, before)
    assert torch.equal(block.link("block", 1).without_branch(x), block.act2(x))


def test_any_of_our_residual_networks_takes_the_block_by_its_path():
    net = CIFARResNet(8, 5, width=4, block=AnnealedBlock, block_arguments={"series_order": 2, "deep_training": False})
    blocks = list(net.residual_blocks().values())
    assert len(blocks) == 3
    assert all(block.act1.conv.kernel_size == (5, 5) and block.conv1.second is None for block in blocks)
    with pytest.raises(NetworkError, match="preactivation"):
        CIFARResNet(8, 5, preactivation=True, block=AnnealedBlock)


@pytest.mark.parametrize(("deep", "order"), [(False, None), (True, None), (False, 3), (True, 3)])
@pytest.mark.parametrize("net", ["resnet", "alexnet"])
def test_a_fit_anneals_merges_and_saves_each_combination(net, deep, order, tmp_path):
    techniques = {"deep_training": deep, "series_order": order, "in_channels": 1, "width": 4}
    net = AnnealedCIFARResNet(8, 10, **techniques) if net == "resnet" else CIFARAlexNet(10, **techniques)
    callbacks = [ActivationAnnealing(epochs=1), MergeAtFitEnd()]
    if isinstance(net, AnnealedCIFARResNet):
        callbacks.append(StochasticDepth(0.5))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=2, limit_val_batches=1, callbacks=callbacks, default_root_dir=tmp_path, **quiet)
    trainer.fit(ImageClassifier(net, 10, lr=0.01), Digits(image_size=8, batch_size=16, train_size=64))
    assert net.activation_lambda == 1
    report = callbacks[1].report()["merge"]
    assert report["merged"]
    assert report["relative_logit_difference_float64"] < 1e-10
    loaded = load_checkpoint(tmp_path / "merged.ckpt").net
    assert all(isinstance(pair.first, nn.Conv2d) for pair in loaded.modules() if isinstance(pair, AnnealedConvs))


def test_the_activation_after_the_sum_is_not_of_the_branch():
    block = AnnealedBlock(4, 4)
    parts = block.branch_parameters(), block.act2.parameters(), block.act1.parameters()
    branch, after, inside = ({id(parameter) for parameter in part} for part in parts)
    assert inside <= branch
    assert not after & branch
