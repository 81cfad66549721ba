"""Gates of a residual block against its formulas."""

import pytest
import torch
from torch import nn

from lit_models import CIFARResNet
from lit_models.interfaces import ResidualBlock, ResidualNetwork, Window


def transition_block(**options):
    """A block with a shortcut that is not the identity, in float64 and with statistics other than 0 and 1."""
    torch.manual_seed(0)
    block = CIFARResNet(8, width=4, **options).layer2[0].double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block


def images(n=8):
    return torch.rand(n, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def branch(block, x):
    """f of a post-activation block, written down once more."""
    return block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))


def test_protocols():
    net = CIFARResNet(8)
    assert isinstance(net, ResidualNetwork)
    assert all(isinstance(block, ResidualBlock) for block in net.residual_blocks().values())


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize(
    ("training", "rescale", "gate", "scale"),
    [
        (True, "eval", None, 0.8),  # what was trained with stochastic depth is trained further as it is evaluated
        (True, "eval", True, 1),
        (False, "eval", None, 0.8),  # Huang et al. 2016, equation 5
        (False, "eval", True, 1),
        (True, "train", None, 1),
        (True, "train", True, 1 / 0.8),  # torchvision, timm
        (False, "train", None, 1),
    ],
)
def test_where_the_branch_is_scaled(training, rescale, gate, scale, preactivation):
    block = transition_block(rescale=rescale, preactivation=preactivation).train(training)
    block.load_state_dict(block.state_dict() | {"survival_prob": torch.tensor(0.8, dtype=torch.float64)})
    block.gate = gate
    x = images()
    expected = block.shortcut(x) + scale * block.branch(x)
    torch.testing.assert_close(block(x), expected if preactivation else expected.relu(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("training", [False, True])
def test_a_skipped_branch_leaves_no_trace(shortcut, training):
    block = transition_block(shortcut=shortcut).train(training)
    block.gate = False
    state = {name: value.clone() for name, value in block.state_dict().items() if "downsample" not in name}
    ran = []
    block.conv1.register_forward_hook(lambda *_: ran.append("conv1"))
    block.bn2.register_forward_hook(lambda *_: ran.append("bn2"))
    x = images().requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, block.shortcut(x).relu())
    y.sum().backward()
    assert not ran
    assert len(state) == 13
    assert all(torch.equal(value, state[name]) for name, value in block.state_dict().items() if name in state)
    assert all(parameter.grad is None for parameter in block.branch_parameters())
    assert x.grad.abs().sum() > 0


def test_skipping_an_identity_block_is_free():
    block = CIFARResNet(8).layer1[0]
    block.gate = False
    x = torch.rand(2, 16, 4, 4)
    assert block(x) is x


def test_branch_parameters_are_those_not_in_the_shortcut():
    block = transition_block(shortcut="B")
    names = {name for name, p in block.named_parameters() if any(p is q for q in block.branch_parameters())}
    assert names == {"conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"}


@pytest.mark.parametrize("rescale", ["eval", "train"])
@pytest.mark.parametrize(
    ("window", "rows"),
    [
        (Window(0.0, 0.5), [0, 1, 2, 3]),
        (Window(0.3, 0.4), [2, 3, 4]),
        (Window(0.75, 0.5), [6, 7, 0, 1]),
        (Window(0.99, 0.01, 0.95), [7]),
        (Window(0.9, 0.9, 0.9), [7, 0, 1, 2, 3, 4, 5, 6]),
        (Window(0.9, 1.0), [7, 0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_window_runs_the_branch_on_its_rows_alone(window, rows, rescale, shortcut):
    """Against indexing, which autograd differentiates by itself."""
    block = transition_block(rescale=rescale, shortcut=shortcut)
    weights = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    scale = 1 / window.share if rescale == "train" else 1

    def run(forward):
        block.load_state_dict(state)
        block.zero_grad()
        x = images().requires_grad_()
        y = forward(x)
        (weights * y).sum().backward()
        gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
        return y.detach(), x.grad, gradients, {name: value.clone() for name, value in block.state_dict().items()}

    def by_index(x):
        return block.shortcut(x).index_add(0, torch.tensor(rows), scale * branch(block, x[rows])).relu()

    state = {name: value.clone() for name, value in block.state_dict().items()}
    expected = run(by_index)
    block.gate = window
    torch.testing.assert_close(run(block), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_window_without_rows_leaves_no_trace(shortcut):
    block = transition_block(shortcut=shortcut)
    block.gate = Window(0.5, 0.05)
    y = block(images())
    torch.testing.assert_close(y, block.shortcut(images()).relu())
    assert all(module.num_batches_tracked == 0 for name, module in block.named_modules() if name in ("bn1", "bn2"))


@pytest.mark.parametrize(("rescale", "expected"), [("eval", 0.3), ("train", 1.0)])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_windows_are_right_on_average(n, rescale, expected):
    """Of all images, p of the branch under ``eval``, all of it under ``train``: over a grid of starts and roundings."""
    block = transition_block(rescale=rescale, preactivation=True)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):  # what an image gets does not depend on the others then
            module.eval()
    x, total = images(n), 0.0
    with torch.no_grad():
        for start in range(n):
            for rounding in range(10):
                block.gate = Window(start / n, 0.3, (rounding + 0.5) / 10)
                total = total + block(x) - block.shortcut(x)
        torch.testing.assert_close(total / (10 * n), expected * block.branch(x))


def test_a_window_through_an_identity_shortcut_does_not_write_into_its_input():
    block = CIFARResNet(8).layer1[0]
    block.gate = Window(0.5, 0.5)
    x = torch.rand(4, 16, 4, 4)
    before = x.clone()
    y = block(x)
    assert torch.equal(x, before)
    assert torch.equal(y[:2], x[:2])
    assert not torch.equal(y[2:], x[2:])


def test_windows_treat_all_rows_alike():
    """Every row is in a window with the probability that is its share: none lies at a border."""
    counts = torch.zeros(8)
    for i in range(800):
        start, count = Window(i / 800, 0.4).rows(8)
        counts[(torch.arange(count) + start) % 8] += 1
    assert counts.tolist() == [300] * 8


def test_windows_keep_channels_last():
    net = CIFARResNet(14, width=8).to(memory_format=torch.channels_last)
    seen = []
    for i, block in enumerate(net.residual_blocks().values()):
        block.gate = Window(i / 6, 0.5)
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
        block.register_full_backward_hook(lambda module, into, out_of: seen.extend(into))
        block.conv2.register_full_backward_hook(lambda module, into, out_of: seen.extend(out_of))
    net(torch.randn(8, 3, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
    assert len(seen) == 18
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_with_all_gates_shut_the_loss_still_reaches_stem_and_head():
    net = CIFARResNet(20)
    for block in net.residual_blocks().values():
        block.gate = False
    net(torch.randn(4, 3, 16, 16)).square().sum().backward()
    used = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert used == {"conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"}
    assert all(net.get_parameter(name).grad.abs().sum() > 0 for name in used)


def test_survival_probabilities_travel_with_the_weights():
    net = CIFARResNet(8)
    for i, block in enumerate(net.residual_blocks().values()):
        block.survival_prob.fill_(0.9 - 0.1 * i)
    other = CIFARResNet(8)
    other.load_state_dict(net.state_dict())
    assert [round(b.survival_prob.item(), 4) for b in other.residual_blocks().values()] == [0.9, 0.8, 0.7]

    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(other.eval()(x), net.eval()(x))


@pytest.mark.parametrize("origin", ["loaded", "drawn"])
def test_what_was_trained_with_stochastic_depth_is_trained_further_as_it_is_evaluated(origin):
    net = CIFARResNet(8)
    for block in net.residual_blocks().values():
        block.survival_prob.fill_(0.5)
        block.gate = True
    x = torch.randn(2, 3, 16, 16)
    net(x)
    if origin == "loaded":
        weights, net = net.state_dict(), CIFARResNet(8)
        net.load_state_dict(weights)
    for module in net.modules():
        if hasattr(module, "gate"):
            module.gate = None
        module.train(not isinstance(module, nn.BatchNorm2d))
    logits = net(x)
    assert torch.equal(logits, net.eval()(x))


def test_constant_depth_multiplies_by_no_survival_probability():
    """It would cost a pass over the maps, and one over their gradient."""
    block = CIFARResNet(8).layer1[0]
    block.load_state_dict(block.state_dict())
    block.survival_prob.fill_(float("nan"))
    assert block(torch.rand(2, 16, 4, 4)).isfinite().all()


def test_weights_without_survival_probabilities_were_trained_at_constant_depth():
    net = CIFARResNet(8)
    weights = {name: value for name, value in net.state_dict().items() if "survival_prob" not in name}
    names = set(weights)
    for block in net.residual_blocks().values():
        block.survival_prob.fill_(0.5)
    net.load_state_dict(weights)
    assert all(block.survival_prob == 1 for block in net.residual_blocks().values())
    assert set(weights) == names
    weights.pop("layer1.0.conv1.weight")
    with pytest.raises(RuntimeError, match="conv1"):
        net.load_state_dict(weights)


@pytest.mark.parametrize("rescale", ["eval", "train"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gate", [None, True, False, Window(0.7, 0.5)])
def test_a_gpu_is_never_waited_for(fake_cuda_forward, gate, training, rescale):
    net = CIFARResNet(14, width=4, rescale=rescale).train(training)
    for block in net.residual_blocks().values():
        block.gate = gate
    logits = fake_cuda_forward(net, 8, 3, 16, 16)
    assert logits.device.type == "cuda"
    assert logits.shape == (8, 10)


def test_windows_leave_the_gradient_of_their_output_alone():
    """It belongs to whoever looks at it."""
    block = CIFARResNet(8, preactivation=True).layer1[0]
    block.gate = Window(0.5, 0.5)
    y = block(torch.rand(4, 16, 4, 4, requires_grad=True))
    y.retain_grad()
    y.sum().backward()
    assert (y.grad == 1).all()
