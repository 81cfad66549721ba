"""What a network does with the images of a data set is seen before the first step."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_models import CIFARResNet, Detector, Segmenter, VanillaNet
from lit_models.tasks.check_images import check_images


class Pair(nn.Linear):
    def forward(self, x):
        return x.mean((2, 3)), x


class Refuses(nn.Module):
    def forward(self, *images):
        raise AssertionError("odd")


@pytest.mark.parametrize(
    ("net", "image_shape", "reason"),
    [
        (VanillaNet(10, depth=5, width=4), (3, 16, 16), "VanillaNet can't take images of 16×16 pixels .* vanish"),
        (CIFARResNet(8, width=4), (1, 8, 8), "CIFARResNet can't take images of 8×8 pixels and 1 channels"),
        (CIFARResNet(8, 7, width=4), (3, 8, 8), r"logits of shape \(N, 10\); .* returned shape \(1, 7\)"),
        (nn.Conv2d(3, 10, 1), (3, 8, 8), r"returned shape \(1, 10, 8, 8\)"),
        (Pair(1, 1), (3, 8, 8), "returned a tuple"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(net, image_shape, reason):
    with pytest.raises(MisconfigurationException, match=reason):
        check_images(net, image_shape, 10)


@pytest.mark.parametrize("task", [Detector, Segmenter])
def test_detectors_and_segmenters_say_what_their_network_says(task):
    with pytest.raises(MisconfigurationException, match="Refuses can't take images of 8×8 pixels and 3 channels: odd"):
        task(Refuses(), 2).check_images((3, 8, 8))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Conv2d(3, 2, 1, stride=2), r"logits of shape \(N, 2, 8, 8\); .* returned shape \(1, 2, 4, 4\)"),
        (Pair(1, 1), "returned a tuple"),
    ],
)
def test_a_segmenter_classifies_every_pixel(net, reason):
    with pytest.raises(MisconfigurationException, match=reason):
        Segmenter(net, 2).check_images((3, 8, 8))


def test_nothing_of_the_network_changes():
    net = CIFARResNet(8, width=4)
    net.bn1.eval()
    modes = [module.training for module in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    check_images(net, (3, 8, 8), 10)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())
