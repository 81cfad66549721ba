"""``fathom paths``, ``ensemble`` and ``responses`` as one types them."""

import csv
from statistics import mean

import pytest
import torch

from callbacks.stochastic_depth import survival_probs
from experiments import __main__ as fathom
from experiments.unravel import paths as paths_command
from experiments.unravel.layer_responses import layer_responses
from lit_models import CIFARResNet
from lit_models.checkpoints import classifier_checkpoint, write_atomically

DIGITS = ["--data", "datamodules.Digits", "--wandb.mode", "disabled"]


@pytest.fixture
def checkpoint(tmp_path):
    """Writes one of a network on digits."""

    def write(name="net", last=0.5, **options):
        torch.manual_seed(0)
        arguments = {"depth": 14, "width": 4, "in_channels": 1, "num_classes": 10, **options}
        net = CIFARResNet(**arguments)
        blocks = list(net.residual_blocks().values())
        for block, prob in zip(blocks, survival_probs(len(blocks), last), strict=True):
            block.survival_prob.fill_(prob)
        path = tmp_path / f"{name}.ckpt"
        write_atomically(classifier_checkpoint(net, arguments), path)
        return str(path), net.eval()

    return write


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_paths_are_weighed(checkpoint, tmp_path, capsys):
    path, _ = checkpoint(last=1.0)
    options = [*DIGITS, "--images", "24", "--batch_size", "8", "--samples", "4", "--out", str(tmp_path)]
    assert fathom.main(["paths", path, *options]) == 0
    assert "lengths" in capsys.readouterr().out
    assert 5_000 < (tmp_path / "paths.png").stat().st_size < 100_000

    exact, sampled = rows(tmp_path / "paths_exact.csv"), rows(tmp_path / "paths_sampled.csv")
    assert len(exact) == 3 * (7 + 3 * 3)  # batches, lengths of the network and of its three stages
    assert len(sampled) == 7 * 4
    assert all(float(row["unexplained"]) < 1e-5 for row in exact)
    for batch in "012":
        for stage, blocks in (("all", 6), ("1", 2), ("2", 2), ("3", 2)):
            part = [row for row in exact if (row["batch"], row["stage"]) == (batch, stage)]
            assert [int(row["length"]) for row in part] == list(range(blocks + 1))
            assert sum(float(row["share"]) for row in part) == pytest.approx(1, abs=1e-5)
    # There is one path without a branch, and one through all: a sample is the sum.
    for length in "06":
        norms = {row["batch"]: row["norm"] for row in exact if row["length"] == length and row["stage"] == "all"}
        drawn = [row for row in sampled if row["length"] == length]
        assert [row["batch"] for row in drawn] == ["0", "0", "1", "2"]
        for row in drawn:
            assert float(row["norm"]) == pytest.approx(float(norms[row["batch"]]), rel=1e-4)
    summary = rows(tmp_path / "paths.csv")
    for row in summary:
        norms = [float(sample["norm"]) for sample in sampled if sample["length"] == row["length"]]
        assert float(row["single_norm"]) == pytest.approx(mean(norms), rel=1e-5)
    assert float(summary[-1]["cumulative_share"]) == pytest.approx(1, abs=1e-5)


def test_a_command_that_was_ended_goes_on(checkpoint, tmp_path, monkeypatch, capsys):
    path, _ = checkpoint()
    options = [*DIGITS, "--batch_size", "8", "--samples", "4"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fathom.main(["paths", path, *options, "--images", "24", "--out", str(whole)]) == 0

    compute, calls = paths_command.sampled_rows, []

    def count(*arguments):
        calls.append(arguments)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(paths_command, "sampled_rows", count)
    assert fathom.main(["paths", path, *options, "--images", "24", "--out", str(parts)]) == 130
    assert len(rows(parts / "paths_exact.csv")) == 2 * 16
    assert fathom.main(["paths", path, *options, "--images", "24", "--out", str(parts)]) == 0
    assert len(calls) == 1 + 3 * 7
    for name in ("paths_exact.csv", "paths_sampled.csv", "paths.csv"):
        assert (parts / name).read_text() == (whole / name).read_text()

    assert fathom.main(["paths", path, *options, "--images", "32", "--out", str(parts)]) == 0
    assert len(calls) == 1 + 3 * 7
    assert len(rows(parts / "paths_exact.csv")) == 4 * 16

    capsys.readouterr()
    assert fathom.main(["paths", path, *options, "--longest", "2", "--out", str(parts)]) == 1
    assert "is of another longest (6, not 2): give another --out" in capsys.readouterr().err
    other, _ = checkpoint("net", width=5)
    assert fathom.main(["paths", other, *options, "--out", str(parts)]) == 1
    assert "is of net with other weights or images" in capsys.readouterr().err


def test_long_paths_can_be_left_out(checkpoint, tmp_path):
    path, _ = checkpoint()
    options = [*DIGITS, "--images", "8", "--batch_size", "8", "--samples", "0", "--longest", "1"]
    assert fathom.main(["paths", path, *options, "--out", str(tmp_path)]) == 0
    whole = [row for row in rows(tmp_path / "paths_exact.csv") if row["stage"] == "all"]
    assert [row["length"] for row in whole] == ["0", "1"]
    assert float(whole[0]["unexplained"]) > 0.01
    assert [row["norm"] == "nan" for row in rows(tmp_path / "paths.csv")] == [False] * 2 + [True] * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--images", "0"], "--images 0 is too small"),
        (["--samples", "-1"], "--samples -1 is too small"),
        (["--data", "datamodules.FashionMNIST", "--data.root", "/nowhere"], "nowhere"),
    ],
)
def test_wrong_settings_are_explained(checkpoint, tmp_path, capsys, options, words):
    path, _ = checkpoint()
    assert fathom.main(["paths", path, *DIGITS, *options, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_plain_network_has_no_paths(checkpoint, tmp_path, capsys):
    path, _ = checkpoint(shortcut="none")
    assert fathom.main(["paths", path, *DIGITS, "--out", str(tmp_path)]) == 1
    assert "no residual branches" in capsys.readouterr().err
    assert not (tmp_path / "paths.csv").exists()


def test_rule_and_averages(checkpoint, tmp_path, capsys):
    path, _ = checkpoint()
    options = [*DIGITS, "--data.eval_batch_size", "16", "--members", "5"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fathom.main(["ensemble", path, *options, "--images", "48", "--out", str(whole)]) == 0
    for images in ("16", "48", "16"):
        assert fathom.main(["ensemble", path, *options, "--images", images, "--out", str(parts)]) == 0
    assert (parts / "ensemble.csv").read_text() == (whole / "ensemble.csv").read_text()
    table = rows(whole / "ensemble.csv")
    assert [row["subnetworks"] for row in table] == list("012345")
    assert all(row["images"] == "48" for row in table)
    assert table[1]["errors"] == table[1]["errors_alone"]
    assert "by the p_l rule" in capsys.readouterr().out
    assert fathom.main(["ensemble", path, *options, "--members", "6", "--out", str(parts)]) == 1
    assert "another members (5, not 6)" in capsys.readouterr().err

    constant, _ = checkpoint("constant", last=1.0)
    assert fathom.main(["ensemble", constant, *options, "--out", str(tmp_path)]) == 1
    assert "was not trained with stochastic depth" in capsys.readouterr().err


def test_responses_of_several_networks(checkpoint, tmp_path):
    plain, net = checkpoint("plain", shortcut="none")
    path, _ = checkpoint("residual")
    options = [*DIGITS, "--images", "40"]
    assert fathom.main(["responses", plain, *options, "--out", str(tmp_path / "plain")]) == 0
    beside = ["--beside", f"[{tmp_path / 'plain'}]"]
    assert fathom.main(["responses", path, *options, *beside, "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "plain" / "responses.csv")
    assert [row["layer"] for row in table] == [str(number) for number in range(1, 14)]
    assert [row["name"] for row in table] == list(layer_responses(net, [torch.randn(1, 1, 8, 8)]))
    assert len(rows(tmp_path / "responses.csv")) == 13
    assert (tmp_path / "responses.png").stat().st_size < 100_000
