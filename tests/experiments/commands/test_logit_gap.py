"""``fathom logit_gap`` as one types it."""

import csv

import pytest
import torch

from experiments.__main__ import main
from experiments.unravel.logit_gap import logit_gaps
from experiments.unravel.source import open_subject


def test_the_gaps_of_a_run(tiny_run, tmp_path, capsys):
    options = ["--images", "50", "--wandb.mode", "disabled", "--out", str(tmp_path)]
    assert main(["logit_gap", str(tiny_run), *options]) == 0
    printed = capsys.readouterr().out
    with open(tmp_path / "logit_gap.csv", newline="") as file:
        mean, *percentiles = csv.DictReader(file)
    subject = open_subject(str(tiny_run))
    with torch.no_grad():
        found = [logit_gaps(subject.net(pixels), targets) for pixels, targets in subject.batches(50)]
    for column, parts in zip(("to_mean", "to_largest"), zip(*found, strict=True), strict=True):
        gaps = torch.cat(parts)
        assert float(mean[column]) == pytest.approx(gaps.mean().item(), rel=1e-5, abs=1e-5)
        values = [float(record[column]) for record in percentiles]
        assert (len(values), values[0], values[100]) == (
            101,
            pytest.approx(gaps.min().item(), rel=1e-5),
            pytest.approx(gaps.max().item(), rel=1e-5),
        )
        assert values[50] == pytest.approx(gaps.quantile(0.5).item(), rel=1e-5, abs=1e-5)
        assert f" {float(mean[column]):.2f}" in printed
    assert mean["images"] == "50"
    assert "10 classes is 4.39" in printed
    assert main(["logit_gap", str(tiny_run), *options, "--smoothing", "0", "--beside", f"[{tmp_path}]"]) == 0
    assert "is inf" in capsys.readouterr().out
    assert 5_000 < (tmp_path / "logit_gap.png").stat().st_size < 400_000


def test_a_smoothing_that_is_none_is_one_sentence(tiny_run, fathom):
    code, sentence = fathom("logit_gap", tiny_run, "--smoothing", "1.5")
    assert code == 2
    assert "smoothing" in sentence
    assert "1.5" in sentence
