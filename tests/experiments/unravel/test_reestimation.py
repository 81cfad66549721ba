"""Statistics of lesioned networks against ``update_bn`` on networks that were really built that way."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from experiments.unravel.lesions import lesion_errors, lesioned, random_lesion, single_lesions
from experiments.unravel.reestimation import reestimated
from experiments.unravel.reordering import random_order, reordered
from experiments.unravel.variants import outputs
from lit_models import CIFARResNet
from lit_models.surgery.links import links


def network(**options):
    torch.manual_seed(0)
    net = CIFARResNet(14, width=4, **options).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.running_var, 0.2, 5)
            nn.init.normal_(module.running_mean)
    return net.eval()


def training_images():
    generator = torch.Generator().manual_seed(1)
    return [2 + 3 * torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.double) for n in (16, 16, 9)]


def held_out_images():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(24, 3, 8, 8, generator=generator, dtype=torch.double)


class Built(nn.Module):
    """A network of copies of the modules of another, without the branches of a lesion, or in another order."""

    def __init__(self, net, variant):
        super().__init__()
        self.net, self.variant = copy.deepcopy(net), variant

    def forward(self, x):
        chain = links(self.net)
        for step in self.variant:
            x = chain[step.link].without_branch(x) if step.deleted else chain[step.link].forward(x)
        return x


def built_anew(net, variant):
    model = Built(net, variant)
    update_bn(training_images(), model)
    return model.eval()(held_out_images())


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"shortcut": "B"}, {"preactivation": True}, {"shortcut": "none"}])
def test_each_variant_has_the_statistics_that_update_bn_gives_a_network_built_that_way(options):
    net = network(**options)
    chain = links(net)
    lesions = [frozenset(), *single_lesions(chain), *(random_lesion(chain, 2, 3, draw) for draw in range(4))]
    variants = [lesioned(chain, lesion) for lesion in lesions]
    variants += [reordered(random_order(chain, 3, 0, draw)) for draw in range(3)]
    steps = []
    with reestimated(net, chain, variants, training_images(), lambda: steps.append(1)) as enter:
        seen = dict(outputs(chain, variants, held_out_images(), enter))
    assert len(steps) == 3 * len(variants)
    for index, variant in enumerate(variants):
        torch.testing.assert_close(seen[index], built_anew(net, variant), rtol=1e-9, atol=1e-9)
    stale = dict(outputs(chain, variants, held_out_images()))
    assert not any(torch.allclose(stale[index], seen[index], rtol=0.01) for index in seen)


def test_errors_are_counted_with_them():
    net = network()
    lesions = single_lesions(links(net))
    targets = torch.arange(24) % 10
    batches = [(held_out_images()[:10], targets[:10]), (held_out_images()[10:], targets[10:])]
    chain = links(net)
    with torch.no_grad():
        predicted = [built_anew(net, lesioned(chain, lesion)).argmax(1) for lesion in lesions]
    expected = [(classes != targets).float().mean().item() for classes in predicted]
    np.testing.assert_allclose(lesion_errors(net, lesions, batches, training_images()), expected, rtol=1e-6)
    assert len({tuple(classes.tolist()) for classes in predicted}) > 1


@pytest.mark.parametrize("moment", ["never", "while estimating", "while counting"])
def test_the_statistics_of_the_network_return_whatever_happens(moment):
    net = network()
    chain = links(net)
    variants = [lesioned(chain, lesion) for lesion in single_lesions(chain)]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    tensors = [net.bn1.running_mean, net.layer3[1].bn2.running_var]

    def interrupt():
        if moment == "while estimating":
            raise KeyboardInterrupt

    def analyse():
        with reestimated(net, chain, variants, training_images(), interrupt) as enter:
            for _ in outputs(chain, variants, held_out_images(), enter):
                if moment == "while counting":
                    raise KeyboardInterrupt

    if moment == "never":
        analyse()
    else:
        with pytest.raises(KeyboardInterrupt):
            analyse()
    assert tensors[0] is net.bn1.running_mean
    assert tensors[1] is net.layer3[1].bn2.running_var
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_without_training_images_the_network_keeps_its_statistics():
    net = network()
    chain = links(net)
    variants = [lesioned(chain, lesion) for lesion in single_lesions(chain)]
    expected = dict(outputs(chain, variants, held_out_images()))
    with reestimated(net, chain, variants, ()) as enter:
        for index, logits in outputs(chain, variants, held_out_images(), enter):
            assert torch.equal(logits, expected[index])
