"""What a GPU alone can show."""

import json

import torch

from callbacks.cuda_graphs import graphed
from lit_models import CIFARResNet


def test_the_check_passes(fathom, tmp_path):
    out = tmp_path / "check.json"
    assert fathom("check", "--quick", "true", "--accelerator", "gpu", "--out", out) == (0, "")
    assert any("float64 beside the CPU's" in answer["about"] for answer in json.loads(out.read_text())["answers"])


def test_a_captured_branch_is_bit_equal_to_an_eager_one(gpu):
    torch.manual_seed(0)
    block, expected = (next(iter(CIFARResNet(8, width=16).residual_blocks().values())) for _ in range(2))
    expected.load_state_dict(block.state_dict())
    block, expected = block.to(gpu), expected.to(gpu)
    replayed = graphed(block, type(block).branch)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            ours, theirs = (torch.randn(8, 16, 32, 32, device=gpu).requires_grad_() for _ in range(2))
            theirs.data.copy_(ours.data)
            block.zero_grad()  # a replay overwrites the gradients of the one before
            expected.zero_grad()
            replayed(block, ours).square().sum().backward()
            expected.branch(theirs).square().sum().backward()
            assert torch.equal(ours.grad, theirs.grad)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in block.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    for mine, other in zip(block.parameters(), expected.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, other.grad)
