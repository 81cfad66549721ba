"""Gradients along paths and by path length, against the gradients of autograd and the sums over all paths."""

from collections import Counter
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from experiments.unravel.decomposition import decompose, gradients_by_length, unexplained, weigh
from experiments.unravel.implicit_ensemble import implicit_ensemble
from experiments.unravel.layer_responses import layer_responses
from experiments.unravel.path_gradients import (
    Fork,
    draw_path,
    norm_per_image,
    path_gradient,
    residual_stack,
    sampled_norms,
    stack_gradients,
)
from lit_models import CIFARResNet
from lit_models.surgery.links import links


def network(depth, survival_prob=1.0, **options):
    """With random statistics, so that no batch normalisation is the identity."""
    torch.manual_seed(0)
    net = CIFARResNet(depth, width=4, **options).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.2)
    for block in net.residual_blocks().values():
        block.survival_prob.fill_(survival_prob)
    return net


def batch(n=3, size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=generator).double(), torch.arange(n) % 10


def stack(net, data=None):
    """Links of the residual stack, and their inputs and gradients."""
    chain = links(net)
    start, end = residual_stack(chain)
    return chain[start:end], stack_gradients(chain, *(data or batch()))


NETS = [
    {"depth": 20},
    {"depth": 20, "preactivation": True},
    {"depth": 14, "shortcut": "B"},
    {"depth": 14, "shortcut": "C", "preactivation": True},
    {"depth": 14, "survival_prob": 0.6},
]


@pytest.mark.parametrize("options", NETS, ids=str)
def test_gradients_of_the_stack_are_those_of_the_network(options):
    net = network(**options)
    images, targets = batch()
    chain, (inputs, gradients) = stack(net)
    assert len(inputs) == len(gradients) == len(chain) + 1

    seen = {}
    block = next(iter(net.residual_blocks().values()))
    hook = block.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    loss = F.cross_entropy(net(images), targets, reduction="sum")
    hook.remove()
    assert torch.equal(inputs[0], seen["x"])
    torch.testing.assert_close(gradients[0], torch.autograd.grad(loss, seen["x"])[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{"preactivation": False}, {"preactivation": True}], ids=str)
def test_all_eight_paths_of_three_blocks_add_up_to_the_gradient(options):
    chain, (inputs, gradients) = stack(network(8, **options))
    forks = [Fork(link, x) for link, x in zip(chain, inputs, strict=False)]
    paths = [frozenset(path) for k in range(4) for path in combinations(range(3), k)]
    assert len(paths) == 8
    total = sum(path_gradient(forks, gradients[-1], path) for path in paths)
    assert norm_per_image(total - gradients[0]) < 1e-14 * norm_per_image(gradients[0])


def test_a_path_is_what_detaching_the_other_way_leaves():
    """As the paper puts it: S.detach() + f on the path, S + f.detach() beside it; the output is the same."""
    net = network(20)
    images, targets = batch()
    chain, (inputs, gradients) = stack(net)
    forks = [Fork(link, x) for link, x in zip(chain, inputs, strict=False)]
    for path in [frozenset({0, 3, 8}), frozenset(), frozenset(range(9)), frozenset({4})]:
        start = x = inputs[0].clone().requires_grad_()
        for index, link in enumerate(chain):
            s, f = link.shortcut(x), link.branch(x)
            x = torch.relu(s.detach() + f if index in path else s + f.detach())
        assert torch.equal(x, inputs[-1])
        logits = links(net)[-1].forward(x)
        assert torch.equal(logits, net(images))
        (expected,) = torch.autograd.grad(F.cross_entropy(logits, targets, reduction="sum"), start)
        torch.testing.assert_close(path_gradient(forks, gradients[-1], path), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("options", NETS, ids=str)
def test_each_length_is_the_sum_of_its_paths(options):
    net = network(**{**options, "depth": 14})
    chain, (inputs, gradients) = stack(net)
    chain, inputs, gradients = chain[1:], inputs[1:], gradients[1:]  # five blocks
    terms = gradients_by_length(chain, inputs, gradients[-1])
    forks = [Fork(link, x) for link, x in zip(chain, inputs, strict=False)]
    assert len(terms) == 6
    for length, term in enumerate(terms):
        paths = [frozenset(path) for path in combinations(range(5), length)]
        brute = sum(path_gradient(forks, gradients[-1], path) for path in paths)
        assert norm_per_image(term - brute) <= 1e-13 * norm_per_image(brute)


def test_eight_blocks_against_all_their_256_paths():
    chain, (inputs, gradients) = stack(network(20), batch(2, size=4))
    chain, inputs, gradients = chain[1:], inputs[1:], gradients[1:]
    terms = gradients_by_length(chain, inputs, gradients[-1])
    forks = [Fork(link, x) for link, x in zip(chain, inputs, strict=False)]
    for length, term in enumerate(terms):
        paths = [frozenset(path) for path in combinations(range(8), length)]
        brute = sum(path_gradient(forks, gradients[-1], path) for path in paths)
        assert norm_per_image(term - brute) <= 1e-13 * norm_per_image(brute)


@pytest.mark.parametrize("preactivation", [False, True])
def test_the_terms_of_27_blocks_add_up_to_the_gradient(preactivation):
    chain, (inputs, gradients) = stack(network(56, preactivation=preactivation), batch(2))
    terms = gradients_by_length(chain, inputs, gradients[-1])
    assert len(terms) == 28
    assert unexplained(terms, gradients[0]) < 1e-12
    assert norm_per_image(terms[0]) > 0
    weights = weigh(terms, gradients[0])
    assert weights.share.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_cut_leaves_the_first_terms_and_knows_what_it_left_out():
    chain, (inputs, gradients) = stack(network(20))
    terms = gradients_by_length(chain, inputs, gradients[-1])
    cut = gradients_by_length(chain, inputs, gradients[-1], longest=3)
    assert len(cut) == 4
    for ours, whole in zip(cut, terms, strict=False):
        assert torch.equal(ours, whole)
    left_out = norm_per_image(sum(terms[4:])) / norm_per_image(gradients[0])
    assert unexplained(cut, gradients[0]).item() == pytest.approx(left_out.item(), rel=1e-9)
    assert len(gradients_by_length(chain, inputs, gradients[-1], longest=100)) == 10


def test_weights_of_a_known_sum():
    terms = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]]), torch.tensor([[0.0, -1.0]])]
    weights = weigh(terms, torch.tensor([[3.0, 4.0]]))
    assert weights.norm.tolist() == [3, 5, 1]
    assert weights.cosine.tolist() == pytest.approx([0.6, 0.8, -0.8])
    assert weights.share.tolist() == pytest.approx([9 / 25, 20 / 25, -4 / 25])


def test_norms_do_not_depend_on_the_size_of_the_batch():
    gradient = torch.randn(5, 2, 3, 3)
    assert norm_per_image(gradient.repeat(4, 1, 1, 1)).item() == pytest.approx(norm_per_image(gradient).item())
    assert norm_per_image(gradient[:1]).item() == pytest.approx(gradient[0].norm().item())


def test_paths_are_drawn_uniformly_by_counters():
    assert draw_path(9, 4, 0, 17) == draw_path(9, 4, 0, 17)
    drawn = Counter(draw_path(5, 2, 3, sample) for sample in range(2000))
    assert len(drawn) == 10
    assert all(150 < count < 250 for count in drawn.values())
    assert draw_path(6, 0, 0, 0) == frozenset()
    assert draw_path(6, 6, 0, 0) == frozenset(range(6))


def test_a_network_without_shortcuts_is_refused():
    with pytest.raises(MisconfigurationException, match="no residual branches"):
        residual_stack(links(CIFARResNet(8, shortcut="none")))


def test_the_functions_for_notebooks():
    net = network(14)
    images, targets = batch()
    chain, (inputs, gradients) = stack(net)
    expected = weigh(gradients_by_length(chain, inputs, gradients[-1]), gradients[0])
    for found, column in zip(decompose(net.train(), images, targets), expected, strict=True):
        torch.testing.assert_close(found, column, rtol=1e-9, atol=0)
    norms = sampled_norms(net, images, targets, samples=3, seed=5)
    assert norms.shape == (7, 3)
    net.eval()
    forks = [Fork(link, x) for link, x in zip(chain, inputs, strict=False)]
    gradient = path_gradient(forks, gradients[-1], draw_path(6, 4, 5, 2))
    assert norms[4, 2].item() == pytest.approx(norm_per_image(gradient).item())
    torch.testing.assert_close(norms[[0, 6], 0], expected.norm[[0, 6]])


ANALYSES = {
    "exact": lambda net: decompose(net, *batch()),
    "sampled": lambda net: sampled_norms(net, *batch(), samples=2),
    "ensemble": lambda net: implicit_ensemble(net, *batch(), members=2),
    "responses": lambda net: layer_responses(net, [batch()[0]]),
}


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=ANALYSES)
def test_a_network_is_left_as_it_was(analysis, error):
    net = network(14, survival_prob=0.5).train()
    net.layer2.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def fails(*_):
        raise error

    if error:
        hook = net.layer3[1].bn2.register_forward_pre_hook(fails)
        with pytest.raises(error):
            analysis(net)
        hook.remove()
    else:
        analysis(net)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert all(block.gate is None for block in net.residual_blocks().values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
