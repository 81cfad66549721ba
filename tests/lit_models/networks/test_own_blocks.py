"""Residual blocks and networks of a user's: what they get from ``GatedBlock`` without writing any of it."""

import sys

import lightning as L
import pytest
import torch
import yaml
from torch import nn

from callbacks import StochasticDepth
from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier, NetworkError, ResNet, load_checkpoint
from lit_models.interfaces import LinkedNetwork, ResidualNetwork, identity
from lit_models.networks.chain import chain_links
from lit_models.networks.residual import GatedBlock, gated_blocks
from lit_models.networks.resnet import BasicBlock, Bottleneck
from lit_models.surgery.links import links


class Depthwise(GatedBlock):
    def __init__(self, channels: int, out_channels: int):
        project = None if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        super().__init__(downsample=project, preactivation=True)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 1),
        )

    def branch(self, x):
        return self.layers(x)


class Mine(nn.Sequential):
    """Twenty lines with the block."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.stage1 = nn.Sequential(Depthwise(4, 4), Depthwise(4, 4))
        self.stage2 = nn.Sequential(Depthwise(4, 8), Depthwise(8, 8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))

    def residual_blocks(self):
        return gated_blocks(self)

    def links(self):
        return chain_links(self.named_children())


def test_a_network_of_blocks_has_stochastic_depth(tmp_path):
    net = Mine()
    assert isinstance(net, ResidualNetwork)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(
        max_steps=3, limit_val_batches=0, callbacks=[StochasticDepth(0.5)], default_root_dir=tmp_path, **quiet
    )
    trainer.fit(ImageClassifier(net, 10), Digits(image_size=8, batch_size=4))
    probs = [block.survival_prob.item() for block in net.residual_blocks().values()]
    assert probs == [0.875, 0.75, 0.625, 0.5]
    assert trainer.callback_metrics["stochastic_depth/planned_work"] < 1


@torch.no_grad()
def test_a_network_of_blocks_is_its_links_bit_for_bit():
    torch.manual_seed(0)
    net = Mine().eval()
    for block, prob in zip(net.residual_blocks().values(), (0.9, 0.8, 0.7, 0.6), strict=True):
        block.survival_prob.fill_(prob)
    assert isinstance(net, LinkedNetwork)
    chain = links(net)
    blocks = ["stage1.0", "stage1.1", "stage2.0", "stage2.1"]
    assert [link.name for link in chain] == ["stem.0", *blocks, "head.0", "head.2"]
    assert [link.stage for link in chain[1:5]] == [0, 0, 1, 1]
    assert [link.transition for link in chain[1:5]] == [False, False, True, False]
    assert [link.shortcut is identity for link in chain[1:5]] == [True, True, False, True]
    images = x = torch.randn(2, 1, 8, 8)
    for link in chain:
        before, y = x.clone(), link.forward(x)
        if link.removable:
            assert torch.equal(y, link.shortcut(x) + link.branch(x))
            assert torch.equal(
                link.branch(x), net.get_submodule(link.name).survival_prob * link.branch.__self__.branch(x)
            )
        assert torch.equal(x, before)
        x = y
    assert torch.equal(x, net(images))


SQUEEZE_EXCITATION = '''
from torch import nn
from lit_models.networks.resnet import BasicBlock


class SEBlock(BasicBlock):
    """Hu et al. 2018: each channel of the branch is scaled by what the means of all channels say."""

    def __init__(self, in_channels, width, *args, **kwargs):
        super().__init__(in_channels, width, *args, **kwargs)
        self.excitation = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1), nn.Sigmoid()
        )

    def branch(self, x):
        y = super().branch(x)
        return y * self.excitation(y)
'''


@pytest.fixture
def se_block(tmp_path, monkeypatch):
    (tmp_path / "squeeze.py").write_text(SQUEEZE_EXCITATION)
    monkeypatch.syspath_prepend(tmp_path)
    from squeeze import SEBlock

    yield SEBlock
    sys.modules.pop("squeeze")


@torch.no_grad()
def test_a_resnet_is_made_of_the_blocks_it_is_given(se_block):
    for net, size in (
        (CIFARResNet(14, width=4, zero_gamma=True, block=se_block), 8),
        (ResNet(18, num_classes=10, block=se_block), 32),
    ):
        blocks = net.eval().residual_blocks()
        assert {type(block) for block in blocks.values()} == {se_block}
        assert [link.name for link in links(net)] == ["conv1", *blocks, "fc"]
        images = x = torch.randn(2, 3, size, size)
        for link in links(net):
            x = link.forward(x)
        assert torch.equal(x, net(images))


def test_the_default_blocks_are_those_of_the_paper():
    assert {type(block) for block in ResNet(50, num_classes=2).residual_blocks().values()} == {Bottleneck}
    torch.manual_seed(0)
    default = CIFARResNet(8).state_dict()
    torch.manual_seed(0)
    given = CIFARResNet(8, block=BasicBlock).state_dict()
    assert default.keys() == given.keys()
    assert all(torch.equal(default[name], given[name]) for name in default)


def test_blocks_without_a_last_norm_have_no_zero_gamma():
    class Bare(GatedBlock):
        def branch(self, x): ...

    with pytest.raises(NetworkError, match="Bare has none: add it"):
        CIFARResNet(8, zero_gamma=True, block=Bare)
    with pytest.raises(NetworkError, match="`block` of your own"):
        CIFARResNet(8, shortcut="none", block=Bare)


def test_a_block_is_named_in_a_configuration_and_in_its_checkpoint(se_block, tiny_config, tmp_path, fathom):
    runs = tmp_path / "runs"
    flags = ["--model.net.block", "squeeze.SEBlock", "--trainer.default_root_dir", runs]
    assert fathom("fit", "--config", tiny_config, *flags) == (0, "")
    (run,) = runs.glob("tiny/*")
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["net"]["init_args"]["block"] == (
        "squeeze.SEBlock"
    )
    model = load_checkpoint(run)
    assert {type(block) for block in model.net.residual_blocks().values()} == {se_block}
    code, sentence = fathom("fit", "--config", tiny_config, "--model.net.block", "torch.nn.Linear")
    assert code == 2
    assert "model.net.block" in sentence


def test_a_block_given_in_python_is_in_the_checkpoint(se_block):
    hparams = ImageClassifier(CIFARResNet(8, block=se_block), 10).hparams
    assert hparams["net"]["init_args"]["block"] == "squeeze.SEBlock"
