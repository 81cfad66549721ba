"""Gradients by depth against autograd through the network itself, which does not know of links."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.unravel.input_gradients import InputGradient, batch_statistics, input_gradients, slope
from lit_models import CIFARResNet, VanillaNet
from lit_models.interfaces import Link


def batch(n=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.randint(10, (n,), generator=generator)


def randomised(net):
    """With running statistics that are not those of any batch."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 3, 9)
            nn.init.uniform_(module.weight, 0.5, 2)
    return net


def network(**options):
    torch.manual_seed(0)
    return randomised(CIFARResNet(14, width=4, **options))


def test_norms_are_those_that_autograd_has_at_the_inputs_of_the_blocks():
    net, batches = network(), [batch(12), batch(7)]
    squares, inputs = {}, []
    for name, block in net.residual_blocks().items():
        block.register_forward_pre_hook(lambda block, args, name=name: inputs.append((name, args[0])))
    for pixels, targets in batches:
        inputs.clear()
        net.train()
        loss = F.cross_entropy(net(pixels), targets, reduction="sum")
        for (name, _), gradient in zip(inputs, torch.autograd.grad(loss, [x for _, x in inputs]), strict=True):
            squares[name] = squares.get(name, 0) + gradient.double().square().sum().item()
    found = {gradient.link: gradient for gradient in input_gradients(net.eval(), batches)}
    assert list(found) == ["conv1", *squares, "fc"]
    assert [gradient.depth for gradient in found.values()] == [0, 1, 3, 5, 7, 9, 11, 13]
    for name, square in squares.items():
        assert found[name].norm == pytest.approx((square / 19) ** 0.5, rel=1e-4)


def test_shortcuts_are_no_layers_and_plain_layers_are_counted_one_by_one():
    projections = input_gradients(network(shortcut="B"), [batch()])
    assert [gradient.depth for gradient in projections] == [0, 1, 3, 5, 7, 9, 11, 13]
    plain = input_gradients(network(shortcut="none"), [batch()])
    assert [gradient.depth for gradient in plain] == list(range(14))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_left_as_it_was(frozen):
    net = network()
    net.requires_grad_(not frozen)
    net.layer2.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    attributes = [dict(vars(module)) for module in net.modules()]
    with torch.no_grad():
        first = input_gradients(net, [batch()])
    assert input_gradients(net, [batch()]) == first
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [dict(vars(module)) for module in net.modules()] == attributes
    assert all(parameter.grad is None for parameter in net.parameters())
    with pytest.raises(IndexError):  # a class that is none
        input_gradients(net, [(batch()[0], torch.full((12,), 10))])
    assert [dict(vars(module)) for module in net.modules()] == attributes


def test_dropped_units_and_running_statistics_have_no_part_in_it():
    net = VanillaNet(10, depth=6, width=8, stem_kernel=2, stem_stride=1, dropout=0.9)
    once, again = input_gradients(net, [batch()]), input_gradients(randomised(net), [batch()])
    assert once != again  # as γ has changed
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 20, 30)
    assert input_gradients(net, [batch()]) == again


def test_the_slope_is_that_of_the_logarithm():
    falling = [InputGradient(str(depth), depth, 7 * math.exp(-0.25 * depth)) for depth in (1, 3, 4, 8)]
    image = InputGradient("stem", 0, 1e9)
    assert slope([image, *falling]) == pytest.approx(-0.25)
    assert math.isnan(slope([image, *falling, InputGradient("dead", 9, 0.0)]))
    assert math.isnan(slope([image, falling[0]]))


def test_a_linear_chain_has_the_slope_of_its_weights():
    """Each layer halves what comes back."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(6))
            for layer in self.layers:
                layer.weight.data.copy_(0.5 * torch.eye(10))

        def links(self):
            return [Link(str(i), i, layer) for i, layer in enumerate(self.layers)]

    x = torch.randn(5, 10)
    assert slope(input_gradients(Chain(), [(x, torch.zeros(5, dtype=torch.long))])) == pytest.approx(math.log(2))


def test_statistics_return_after_an_error():
    net = network()
    attributes = [dict(vars(module)) for module in net.modules()]
    with pytest.raises(KeyboardInterrupt), batch_statistics(net):
        raise KeyboardInterrupt
    assert [dict(vars(module)) for module in net.modules()] == attributes
