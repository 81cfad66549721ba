"""ReLU of a tensor that nobody needs afterwards."""

import pytest
import torch

from lit_models.networks.relu import relu


@pytest.mark.parametrize("autocast", [False, True])
def test_the_values_are_those_of_relu_and_a_new_tensor_is_made_under_autocast_alone(autocast):
    x = torch.randn(4, 5)
    expected = torch.relu(x)
    with torch.autocast("cpu", enabled=autocast):
        y = relu(x)
    assert torch.equal(y, expected)
    assert (y.data_ptr() != x.data_ptr()) == autocast
