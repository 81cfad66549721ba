"""Networks against torchvision, timm and the papers' numbers."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from lit_models import CIFARResNet, ResNet
from lit_models.cost import count_branch_macs, count_macs, count_parameters
from lit_models.errors import NetworkError


def randomise_batch_norm(net):
    """Fresh statistics and weights of 0 and 1 would hide a missing or misplaced normalisation."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: ResNet(18), torchvision.models.resnet18),
        (lambda: ResNet(50), torchvision.models.resnet50),
        (lambda: ResNet(18, variant="D"), lambda: timm.create_model("resnet18d")),
        (lambda: ResNet(50, variant="D"), lambda: timm.create_model("resnet50d")),
        (lambda: ResNet(50, variant="C"), lambda: timm.create_model("resnet50c")),
    ],
    ids=["resnet18", "resnet50", "resnet18d", "resnet50d", "resnet50c"],
)
def test_same_logits_and_input_gradients_as_the_libraries(ours, theirs, training):
    torch.manual_seed(0)
    ours, theirs = ours(), theirs()
    randomise_batch_norm(theirs)
    ours.load_state_dict(theirs.state_dict())
    # 79 pixels: an odd size tells the ways of pooling at the border apart.
    images = torch.randn(2, 3, 79, 79, dtype=torch.float64)
    logits, gradients = [], []
    for net in (ours, theirs):
        x = images.clone().requires_grad_()
        y = net.double().train(training)(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
        logits.append(y.detach())
        gradients.append(x.grad)
    assert logits[1].std() > 0.1
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("depth", "parameters", "mmacs"),
    [
        (20, 0.270, 40.6),
        (32, 0.464, 68.9),
        (44, 0.659, 97.2),
        (56, 0.853, 125.5),
        (110, 1.728, 252.9),
        (152, 2.41, 352.0),
        (1202, 19.42, 2829),
    ],
)
def test_cost_of_cifar_networks(depth, parameters, mmacs):
    """Parameters: He et al. 2015, table 6; multiply-adds by hand, as the paper has none."""
    with torch.device("meta"):
        net = CIFARResNet(depth)
    assert count_parameters(net) / 1e6 == pytest.approx(parameters, rel=2e-3)
    assert count_macs(net, (3, 32, 32)) / 1e6 == pytest.approx(mmacs, rel=1.3e-3)
    assert len(net.residual_blocks()) == (depth - 2) // 2


@pytest.mark.parametrize(
    ("depth", "parameters", "original", "b", "d"),
    [
        (18, 11.69, 1.81, 1.81, 2.05),
        (34, 21.80, 3.66, 3.66, 3.90),
        (50, 25.56, 3.86, 4.09, 4.33),
        (101, 44.55, 7.57, 7.80, 8.04),
        (152, 60.19, 11.28, 11.51, 11.75),
    ],
)
def test_cost_of_imagenet_networks(depth, parameters, original, b, d):
    """To more digits than He et al. 2015, table 1, and He et al. 2019, table 5, print."""
    for variant, gmacs in {"original": original, "B": b, "C": d, "D": d}.items():
        with torch.device("meta"):
            net = ResNet(depth, variant=variant)
        stem = 0.02 if variant in ("C", "D") else 0
        assert count_parameters(net) / 1e6 == pytest.approx(parameters + stem, abs=0.006)
        assert count_macs(net, (3, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=0.006)


SMALL = [
    *[
        partial(CIFARResNet, 14, shortcut=shortcut, downsample=downsample, preactivation=preactivation, width=8)
        for shortcut in "ABC"
        for downsample in ("stride", "average_pool")
        for preactivation in (False, True)
    ],
    partial(CIFARResNet, 14, shortcut="none"),
    partial(CIFARResNet, 8, in_channels=1, num_classes=7),
    partial(ResNet, 18, shortcut="none", num_classes=10),
    *[
        partial(ResNet, 50, variant=variant, preactivation=preactivation, num_classes=10)
        for variant in ("original", "B", "C", "D")
        for preactivation in (False, True)
    ],
    partial(ResNet, 50, shortcut="A", num_classes=10),
    partial(ResNet, 18, shortcut="C", num_classes=10),
]


@pytest.mark.parametrize("build", SMALL)
def test_every_network_trains_all_of_its_parameters(build):
    net = build()
    in_channels = next(m for m in net.modules() if isinstance(m, nn.Conv2d)).in_channels
    # 33 pixels: shortcut and branch must agree on how an odd size is halved.
    for size in (32, 33):
        logits = net.train()(torch.randn(2, in_channels, size, size))
        assert logits.shape == (2, net.fc.out_features)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_residual_blocks_are_named_and_in_forward_order():
    net = CIFARResNet(20)
    seen = []
    blocks = net.residual_blocks()
    for name, block in blocks.items():
        block.register_forward_hook(lambda *_, name=name: seen.append(name))
    net(torch.randn(2, 3, 16, 16))
    assert list(blocks) == seen == [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1, 2)]


def test_shortcuts_shape_by_shape():
    """A has no parameters; B projects where the shape changes, C everywhere."""
    projections = {
        kind: sum("downsample.0.weight" in name for name, _ in CIFARResNet(20, shortcut=kind).named_parameters())
        for kind in ("A", "B", "C", "none")
    }
    assert projections == {"A": 0, "B": 2, "C": 9, "none": 0}
    projections = {
        kind: sum("downsample.0.weight" in name for name, _ in ResNet(50, shortcut=kind).named_parameters())
        for kind in ("A", "B", "C")
    }
    assert projections == {"A": 0, "B": 4, "C": 16}


@pytest.mark.parametrize("downsample", ["stride", "average_pool"])
def test_zero_padded_shortcut(downsample):
    x = torch.randn(2, 4, 6, 6)
    y = CIFARResNet(8, width=4, downsample=downsample).layer2[0].shortcut(x)
    expected = x[:, :, ::2, ::2] if downsample == "stride" else x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    assert y.shape == (2, 8, 3, 3)
    torch.testing.assert_close(y[:, :4], expected)
    assert (y[:, 4:] == 0).all()


def test_plain_network_is_the_residual_one_without_its_shortcuts():
    torch.manual_seed(0)
    plain, residual = CIFARResNet(14, shortcut="none"), CIFARResNet(14)
    assert plain.residual_blocks() == {}
    assert not plain.load_state_dict(residual.state_dict(), strict=False).missing_keys
    assert count_parameters(plain) == count_parameters(residual)

    x = torch.randn(2, 3, 16, 16)
    y = torch.relu(residual.bn1(residual.conv1(x)))
    for block in residual.residual_blocks().values():
        y = torch.relu(block.branch(y))
    torch.testing.assert_close(plain(x), residual.forward_head(y))


def test_preactivation_network_adds_up():
    """He et al. 2016, equation 5: with identity shortcuts the last activation is the first plus all branches."""
    net = CIFARResNet(8, preactivation=True, shortcut="A", width=8).eval()
    first = net.layer1[0]
    x = torch.randn(2, 8, 8, 8)
    torch.testing.assert_close(first(x), x + first.conv2(net.layer1[0].bn2(first.conv1(first.bn1(x).relu())).relu()))


def test_zero_gamma_starts_every_block_as_its_shortcut():
    net = ResNet(50, zero_gamma=True)
    norms = [name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()]
    assert norms == [f"{name}.bn3" for name in net.residual_blocks()]
    x = torch.rand(2, 256, 8, 8)
    assert torch.equal(net.layer1[1](x), x)
    assert not any(m.weight.any().logical_not() for m in ResNet(18).modules() if isinstance(m, nn.BatchNorm2d))


def test_branch_macs_are_the_network_without_stem_head_and_projections():
    net = ResNet(50)
    macs = count_branch_macs(net, (3, 224, 224))
    assert len(macs) == 16
    stem, head = 64 * 147 * 112**2, 2048 * 1000
    projections = sum(i * o * s**2 for i, o, s in [(64, 256, 56), (256, 512, 28), (512, 1024, 14), (1024, 2048, 7)])
    assert sum(macs) == count_macs(net, (3, 224, 224)) - stem - head - projections
    assert net.training
    assert not any(block._forward_pre_hooks for block in net.residual_blocks().values())


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("downsample", ["stride", "average_pool"])
def test_activations_and_their_gradients_stay_channels_last(downsample, preactivation):
    net = CIFARResNet(14, downsample=downsample, preactivation=preactivation).to(memory_format=torch.channels_last)
    outputs = []
    for block in net.residual_blocks().values():
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        block.register_full_backward_hook(lambda module, into, out_of: outputs.extend(into))
    net(torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
    assert len(outputs) == 12
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in outputs)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CIFARResNet(21), "20 or 26"),
        (lambda: CIFARResNet(2), "8 or 14"),
        (lambda: ResNet(60), "18, 34, 50, 101, 152"),
        (lambda: ResNet(50, shortcut="none"), "depth 18 or 34"),
        (lambda: CIFARResNet(20, shortcut="none", preactivation=True), "without `preactivation`"),
        (lambda: CIFARResNet(20, zero_gamma=True, preactivation=True), "zero_gamma"),
    ],
)
def test_settings_that_make_no_network_are_explained(build, words):
    with pytest.raises(NetworkError, match=words):
        build()


def test_weights_begin_as_in_torch7():
    """Kaiming by the fan-in, γ uniform in [0, 1) (Huang et al. 2016); the default is by the fan-out, γ = 1."""
    torch.manual_seed(0)
    for init in ("fan_out", "torch7"):
        net = CIFARResNet(56, init=init)
        conv = net.layer2[0].conv1.weight.detach()  # 16 channels in, 32 out
        fan = {"fan_out": 9 * 32, "torch7": 9 * 16}[init]
        assert conv.std() == pytest.approx((2 / fan) ** 0.5, rel=5 / (2 * conv.numel()) ** 0.5)
        gammas = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
        assert all((m.bias == 0).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        if init == "fan_out":
            assert (gammas == 1).all()
        else:
            below = gammas.sort().values - torch.arange(len(gammas)) / len(gammas)
            assert below.abs().max() < 1.95 / len(gammas) ** 0.5  # Kolmogorov-Smirnov, 99.9 %
    zero = CIFARResNet(8, init="torch7", zero_gamma=True)
    assert all((block.last_norm.weight == 0).all() for block in zero.residual_blocks().values())
