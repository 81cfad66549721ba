"""TF32 and cuDNN's choice of algorithms are as the user asks, said in the summary; an analysis never has TF32."""

import json

import pytest
import torch

from experiments.tf32 import allow_tf32
from experiments.unravel.source import open_subject


@pytest.fixture(autouse=True)
def as_before():
    yield
    allow_tf32(False)
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("allowed", [False, True])
def test_a_run_says_how_its_convolutions_were_computed(fathom, tiny_config, tmp_path, allowed):
    allow_tf32(not allowed)
    flags = [f"--tf32={allowed}".lower(), f"--trainer.benchmark={allowed}".lower()]
    code, _ = fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path, *flags)
    assert code == 0
    (path,) = tmp_path.glob("tiny/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["tf32"] is torch.backends.cudnn.allow_tf32 is allowed
    assert summary["cudnn_benchmark"] is torch.backends.cudnn.benchmark is allowed


def test_an_analysis_is_exact(tiny_run):
    allow_tf32(True)
    open_subject(str(tiny_run))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
