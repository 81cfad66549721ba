"""Pairs of convolutions merged in mid-fit on two real processes with gloo."""

import pytest
import torch

pytestmark = pytest.mark.slow


def test_ranks_merge_the_statistics_of_the_first_and_stay_bit_identical(tmp_path, run_on_ranks):
    """Each has running statistics of its own; and the gradients of the new parameters are reduced, too."""
    first, second = run_on_ranks(tmp_path / "run", "--merge")
    assert first["steps"] == 40
    assert first["hashes"] == second["hashes"]
    assert len(set(first["hashes"])) == 40
    assert not [name for name in first["parameters"] if ".second." in name]


def test_two_processes_do_what_one_does_with_accumulation(tmp_path, run_on_ranks):
    """With frozen batch statistics, the only thing that two halves of a batch do not share."""
    (accumulated,) = run_on_ranks(tmp_path / "one", "--merge", "--frozen", "--accumulate", "2", devices=1)
    first, _ = run_on_ranks(tmp_path / "two", "--merge", "--frozen")
    assert accumulated["steps"] == first["steps"] == 40
    for name, value in first["parameters"].items():
        torch.testing.assert_close(value, accumulated["parameters"][name], rtol=1e-9, atol=1e-12)
