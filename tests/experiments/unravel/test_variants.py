"""Lesions and other orders against networks that were really built or gated that way, one after the other."""

from itertools import combinations

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from experiments.unravel.lesions import (
    contiguous_lesions,
    lesion_errors,
    lesioned,
    random_lesion,
    removable,
    single_lesions,
)
from experiments.unravel.reordering import exchangeable, kendall_tau, random_order, reordered, reordering_errors
from experiments.unravel.variants import Step, count_errors, outputs
from lit_models import CIFARResNet
from lit_models.interfaces import Link
from lit_models.surgery.links import links


def network(depth=20, **options):
    """With random statistics and survival probabilities."""
    torch.manual_seed(0)
    net = CIFARResNet(depth, width=4, **options)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_var", "survival_prob")):
            buffer.uniform_(0.5, 1)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return net.eval()


def batch(n=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.randint(10, (n,), generator=generator)


def mixed_lesions(chain):
    lesions = [frozenset(), *single_lesions(chain), *contiguous_lesions(chain, 3)]
    return lesions + [random_lesion(chain, size, 7, draw) for size in (1, 4, 8) for draw in range(5)]


def gated(net, lesion, images):
    """The network with the gates of these blocks shut: it does not know of links."""
    blocks = list(net.residual_blocks().values())
    try:
        for index in lesion:
            blocks[index - 1].gate = False
        return net(images)
    finally:
        for block in blocks:
            block.gate = None


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"preactivation": True}, {"shortcut": "B"}])
def test_lesions_are_shut_gates_bit_for_bit_in_float32(options):
    net = network(**options)
    chain, (images, _) = links(net), batch()
    lesions = mixed_lesions(chain)
    seen = dict(outputs(chain, [lesioned(chain, lesion) for lesion in lesions], images))
    assert sorted(seen) == list(range(len(lesions)))
    for index, lesion in enumerate(lesions):
        assert torch.equal(seen[index], gated(net, lesion, images)), lesion


@torch.no_grad()
def test_orders_are_networks_built_that_way_bit_for_bit():
    net = network()
    chain, (images, _) = links(net), batch()
    orders = [random_order(chain, swaps, 3, draw) for swaps in (0, 1, 2, 9) for draw in range(3)]
    seen = dict(outputs(chain, [reordered(order) for order in orders], images))
    for index, order in enumerate(orders):
        x = images
        for link in order:
            x = chain[link].forward(x)
        assert torch.equal(seen[index], x)


def test_errors_over_batches():
    net = network()
    images, targets = batch(24)
    lesions = single_lesions(links(net))
    with torch.no_grad():
        expected = [(gated(net, lesion, images).argmax(1) != targets).float().mean().item() for lesion in lesions]
    batches = [(images[:10], targets[:10]), (images[10:], targets[10:])]
    np.testing.assert_allclose(lesion_errors(net, lesions, batches), expected, rtol=1e-6)
    orders = [tuple(range(11))] * 2
    whole = (net(images).argmax(1) != targets).float().mean().item()
    np.testing.assert_allclose(reordering_errors(net, orders, batches), [whole, whole], rtol=1e-6)


def counting(count, work, alive):
    """A chain that counts its forward passes, and the activations that exist at one time."""

    class Activation:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.append(-1)

    def forward(x):
        work.append(1)
        return Activation()

    return [Link(str(i), 1, forward, shortcut=lambda x: Activation()) for i in range(count)]


def test_all_single_lesions_cost_half_and_draws_share_their_beginnings():
    work, alive = [], []
    chain = counting(54, work, alive)
    for _ in outputs(chain, [lesioned(chain, lesion) for lesion in single_lesions(chain)], None):
        pass
    # One pass for the beginnings, and after the deletion of the i-th link the 54 − i that follow.
    assert len(work) == 53 + 54 * 53 // 2
    del work[:]
    pairs = [frozenset(pair) for pair in combinations(range(54), 2)]
    for _ in outputs(chain, [lesioned(chain, pair) for pair in pairs], None):
        pass
    assert len(work) < 0.4 * 52 * len(pairs)


def test_few_activations_wait():
    work, alive = [], []
    chain = counting(30, work, alive)
    pairs = [frozenset(pair) for pair in combinations(range(30), 2)]
    most = 0
    for _ in outputs(chain, [lesioned(chain, pair) for pair in pairs], None):
        most = max(most, sum(alive))
    assert most <= np.log2(len(pairs)) + 3


def test_nothing_is_computed_twice_for_equal_variants():
    work, alive = [], []
    chain = counting(5, work, alive)
    whole = lesioned(chain, frozenset())
    assert [index for index, _ in outputs(chain, [whole, whole], None)] == [0, 1]
    assert len(work) == 5


def test_variants_may_end_early():
    chain = [Link(str(i), 1, lambda x, i=i: [*x, i]) for i in range(3)]
    variants = [(Step(0),), (Step(0), Step(2)), ()]
    assert dict(outputs(chain, variants, [])) == {0: [0], 1: [0, 2], 2: []}


@torch.no_grad()
@pytest.mark.parametrize("preactivation", [False, True])
def test_deleting_a_branch_of_zeros_changes_nothing(preactivation):
    net, (images, _) = network(preactivation=preactivation), batch()
    block = net.layer2[1]
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.bn2.bias)
    if not preactivation:
        nn.init.zeros_(block.bn2.weight)
    chain = links(net)
    index = next(i for i, link in enumerate(chain) if link.name == "layer2.1")
    ((_, lesion),) = outputs(chain, [lesioned(chain, frozenset([index]))], images)
    assert torch.equal(lesion, net(images))
    ((_, other),) = outputs(chain, [lesioned(chain, frozenset([index - 1]))], images)
    assert not torch.allclose(other, net(images))


class Interrupted(nn.Module):
    """Stands in the place of a layer, and raises when it has run some times."""

    def __init__(self, error, after):
        super().__init__()
        self.error, self.after = error, after

    def forward(self, x):
        self.after -= 1
        if self.after < 0:
            raise self.error
        return x


@pytest.mark.parametrize("error", [None, RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("analysis", ["lesions", "orders"])
def test_the_network_is_the_same_before_and_after_whatever_happens(error, analysis):
    net = network()
    net.train()
    net.layer2.eval()  # some modules in each mode
    net.maxpool = Interrupted(error, after=2 if error else 99)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    attributes = [dict(vars(module)) for module in net.modules()]
    chain = links(net)

    def analyse():
        batches = [batch()] * 3
        if analysis == "lesions":
            lesion_errors(net, mixed_lesions(chain), batches)
        else:
            reordering_errors(net, [random_order(chain, 3, 0, draw) for draw in range(4)], batches)

    if error is None:
        analyse()
    else:
        with pytest.raises(type(error)):
            analyse()
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [module.training for module in net.modules()] == modes
    attributes[0].pop("after", None)
    for module, known in zip(net.modules(), attributes, strict=True):
        if not isinstance(module, Interrupted):
            assert vars(module) == known
    assert all(parameter.grad is None for parameter in net.parameters())


def test_random_lesions_are_functions_of_their_arguments_and_uniform():
    chain = links(network())
    assert random_lesion(chain, 3, 1, 2) == random_lesion(chain, 3, 1, 2)
    drawn = [random_lesion(chain, 3, 0, draw) for draw in range(900)]
    assert {len(lesion) for lesion in drawn} == {3}
    counts = np.bincount([link for lesion in drawn for link in lesion], minlength=11)
    assert counts[0] == counts[10] == 0
    assert counts[1:10].min() > 240  # 300 are expected
    with pytest.raises(MisconfigurationException, match="10 blocks or layers can't be deleted of the 9"):
        random_lesion(chain, 10, 0, 0)


def test_runs():
    chain = links(network())
    assert contiguous_lesions(chain, 8) == [frozenset(range(1, 9)), frozenset(range(2, 10))]
    assert contiguous_lesions(chain, 10) == []


def test_transitions_and_strangers_stay_in_their_places():
    chain = links(network(depth=56))
    assert [len(stage) for stage in exchangeable(chain)] == [9, 8, 8]
    stage = {index: number for number, indices in enumerate(exchangeable(chain)) for index in indices}
    for draw in range(50):
        order = random_order(chain, 5, 0, draw)
        assert sorted(order) == list(range(len(chain)))
        for place, index in enumerate(order):
            assert place == index or stage[place] == stage[index]
    assert len({random_order(chain, 5, 0, draw) for draw in range(50)}) == 50


def test_54_blocks_have_18_17_and_17_that_may_change_places():
    assert [len(stage) for stage in exchangeable(links(CIFARResNet(110, width=2)))] == [18, 17, 17]


def test_tau_is_that_of_all_pairs():
    chain = links(network())
    blocks = removable(chain)
    for draw in range(20):
        order = random_order(chain, 4, 0, draw)
        place = {index: order.index(index) for index in blocks}
        pairs = list(combinations(blocks, 2))
        in_order = sum(place[first] < place[second] for first, second in pairs)
        assert kendall_tau(chain, order) == pytest.approx(2 * in_order / len(pairs) - 1)
    assert kendall_tau(chain, tuple(range(len(chain)))) == 1.0


def test_orders_of_a_network_without_equals_are_refused():
    with pytest.raises(MisconfigurationException, match="no two blocks"):
        random_order(links(CIFARResNet(8, width=4)), 1, 0, 0)


def test_counts_stay_on_the_device_of_the_images():
    """The meta device has no numbers to bring to the host: whoever asks for one fails."""
    net = network().to("meta")
    images, targets = (x.to("meta") for x in batch())
    chain = links(net)
    errors = count_errors(chain, [lesioned(chain, lesion) for lesion in single_lesions(chain)], images, targets)
    assert (errors.device.type, errors.dtype, errors.shape) == ("meta", torch.int64, (9,))
