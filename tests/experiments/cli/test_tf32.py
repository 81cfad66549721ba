"""TF32 is what the user asks for, said in the summary, and never in an analysis."""

import json

import pytest
import torch

from experiments.tf32 import allow_tf32
from experiments.unravel.source import open_subject


@pytest.fixture(autouse=True)
def as_before():
    yield
    allow_tf32(False)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_run_says_whether_float32_was_rounded(fathom, tiny_config, tmp_path, allowed):
    allow_tf32(not allowed)
    code, _ = fathom(
        "fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path, f"--tf32={allowed}".lower()
    )
    assert code == 0
    (summary,) = tmp_path.glob("tiny/*/summary.json")
    assert json.loads(summary.read_text())["tf32"] is torch.backends.cudnn.allow_tf32 is allowed


def test_an_analysis_is_exact(tiny_run):
    allow_tf32(True)
    open_subject(str(tiny_run))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
