from statistics import mean

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.stochastic_depth import draw_gates, survival_probs
from experiments.unravel.implicit_ensemble import implicit_ensemble
from lit_models import CIFARResNet, VanillaNet


def network(last=0.5, **options):
    torch.manual_seed(0)
    net = CIFARResNet(20, width=4, **options).eval()
    for block, prob in zip(net.residual_blocks().values(), survival_probs(9, last), strict=True):
        block.survival_prob.fill_(prob)
    return net


def batch(n=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.randint(10, (n,), generator=generator)


@pytest.mark.parametrize("rescale", ["eval", "train"])
def test_members_are_the_subnetworks_of_training(rescale):
    net, (images, targets) = network(rescale=rescale), batch()
    probs = survival_probs(9, 0.5)
    total = torch.zeros(64, 10)
    averaged, single = [], []
    for member in range(5):
        x = net.bn1(net.conv1(images)).relu()
        gates = draw_gates([block.survival_prob.item() for block in net.residual_blocks().values()], "batch", 7, member)
        for block, gate, prob in zip(net.residual_blocks().values(), gates, probs, strict=True):
            f = block.branch(x) / (prob if rescale == "train" else 1)
            x = (block.shortcut(x) + gate * f).relu()
        logits = net.fc(x.mean((2, 3)))
        total += logits.softmax(1)
        single.append((logits.argmax(1) == targets).sum().item())
        averaged.append((total.argmax(1) == targets).sum().item())
    hits = implicit_ensemble(net, images, targets, members=5, seed=7)
    assert hits.single.tolist() == single
    assert hits.averaged.tolist() == averaged
    assert hits.rule == (net(images).argmax(1) == targets).sum()
    assert len(set(single)) > 1


def test_subnetworks_are_the_same_for_all_images():
    net, (images, targets) = network(), batch()
    whole = implicit_ensemble(net, images, targets, members=4)
    parts = [implicit_ensemble(net, images[i::2], targets[i::2], members=4) for i in (0, 1)]
    assert torch.equal(whole.averaged, parts[0].averaged + parts[1].averaged)
    assert torch.equal(whole.single, parts[0].single + parts[1].single)


def test_the_network_is_left_as_it_was():
    net, (images, targets) = network(), batch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    logits = net(images)
    blocks = list(net.residual_blocks().values())
    blocks[2].gate = False
    implicit_ensemble(net, images, targets, members=2)
    assert [block.gate for block in blocks] == [None, None, False] + [None] * 6
    for error in (KeyboardInterrupt, RuntimeError):

        def fails(*_, error=error):
            raise error

        hook = blocks[8].register_forward_pre_hook(fails)
        with pytest.raises(error):
            implicit_ensemble(net, images, targets, members=2)
        hook.remove()
        assert [block.gate for block in blocks] == [None, None, False] + [None] * 6
    blocks[2].gate = None
    assert torch.equal(net(images), logits)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_average_beats_its_members():
    """Where members err independently: labels are what the whole network says."""
    net, (images, _) = network(0.7), batch(256)
    hits = implicit_ensemble(net, images, net(images).argmax(1), members=32)
    assert hits.rule == 256
    assert hits.averaged[-1] > mean(hits.single.tolist())


@pytest.mark.parametrize("net", [CIFARResNet(8), VanillaNet(10, depth=5), CIFARResNet(8, shortcut="none")])
def test_a_network_of_constant_depth_is_refused(net):
    with pytest.raises(MisconfigurationException, match=f"{type(net).__name__} was not trained with stochastic depth"):
        implicit_ensemble(net.eval(), *batch(2))
