"""Skipped blocks on two real processes with gloo, under Lightning's plain ``ddp`` strategy."""

import pytest
import torch


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ((), 20),
        (("--accumulate", "2"), 10),
        (("--mode", "sample"), 20),
        pytest.param(("--mode", "sample", "--survival_prob", "0.1"), 20, marks=pytest.mark.slow),
        pytest.param(("--blocks", "4"), 20, marks=pytest.mark.slow),
        pytest.param(("--compile",), 20, marks=pytest.mark.slow),
    ],
    ids=lambda o: str(o),
)
def test_two_processes_stay_bit_identical(tmp_path, run_on_ranks, options, steps):
    first, second = run_on_ranks(tmp_path / "run", *options)
    assert first["steps"] == steps
    assert first["gates"] == second["gates"]
    assert first["hashes"] == second["hashes"]
    assert len(first["hashes"]) == 20
    assert len(set(first["hashes"])) >= steps
    gates = [[gate != "False" for gate in gates] for gates in first["gates"]]
    assert first["gradients"] == second["gradients"] == gates[:: 20 // steps]
    if "sample" not in options:
        assert any("False" in gates for gates in first["gates"])
        assert any("True" in gates for gates in first["gates"])


def test_two_processes_do_what_one_does_with_accumulation(tmp_path, run_on_ranks):
    """With frozen batch statistics, the only thing that two halves of a batch do not share."""
    (accumulated,) = run_on_ranks(tmp_path / "one", "--frozen", "--accumulate", "2", devices=1)
    first, _ = run_on_ranks(tmp_path / "two", "--frozen")
    assert accumulated["steps"] == first["steps"] == 20
    assert accumulated["gates"][::2] == accumulated["gates"][1::2] == first["gates"]
    for name, value in first["parameters"].items():
        torch.testing.assert_close(value, accumulated["parameters"][name], rtol=1e-9, atol=1e-12)
