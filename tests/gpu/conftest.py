"""Everything here needs a GPU."""

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu():
    """The first GPU; without one the test is skipped."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use here")
    return torch.device("cuda", 0)
