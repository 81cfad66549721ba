"""ReLU of a tensor that nobody needs afterwards."""

import pytest
import torch

from lit_models.networks.relu import relu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_of_relu_and_a_new_tensor_is_made_in_bfloat16_alone(dtype):
    x = torch.randn(4, 5).to(dtype)
    expected = torch.relu(x)
    y = relu(x)
    assert torch.equal(y, expected)
    assert (y.data_ptr() != x.data_ptr()) == (dtype == torch.bfloat16)
