"""``fathom paths``, ``ensemble`` and ``responses`` as one types them."""

import csv
from math import comb
from statistics import mean

import pytest
import torch

from callbacks.stochastic_depth import survival_probs
from datamodules import Digits
from experiments import __main__ as fathom
from experiments.commands import paths as paths_command
from experiments.commands.paths import findings
from experiments.unravel.implicit_ensemble import implicit_ensemble
from experiments.unravel.layer_responses import layer_responses
from experiments.unravel.path_summary import summarise
from experiments.unravel.source import open_subject
from lit_models import CIFARResNet, TimmBackbone
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
    assert 5_000 < (tmp_path / "paths.png").stat().st_size < 400_000

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
    contributions = [comb(6, length) * float(row["single_norm"]) for length, row in enumerate(summary)]
    for row, contribution in zip(summary, contributions, strict=True):
        assert float(row["contribution"]) == pytest.approx(contribution / sum(contributions), rel=1e-4)
        norms = [float(sample["norm"]) for sample in sampled if sample["length"] == row["length"]]
        assert float(row["single_norm"]) == pytest.approx(mean(norms), rel=1e-5)
    assert float(summary[-1]["cumulative_share"]) == pytest.approx(1, abs=1e-5)


def test_findings_are_those_of_the_summary():
    exact = {"norm": [4, 3, 2, 0.1, 0.1], "share": [-0.3, 0.6, 0.65, 0.1, -0.05]}
    sampled = [8, 4, 2, 1, 0.001]
    summary = summarise(
        [
            {"blocks": "4", "length": length, "norm": norm, "cosine": 0, "share": share}
            for length, (norm, share) in enumerate(zip(*exact.values(), strict=True))
        ],
        [{"length": length, "norm": norm} for length, norm in enumerate(sampled)],
    )
    # 8, 16, 12, 4, 0.001 of 40.001; 9.2; and 0, 0.6, 0.65, 0.1, 0 of 1.35. Of 16 paths 1, 4, 6, 4 and 1 have a length.
    assert findings(summary) == [
        "by the C(n, k) · mean norm of sampled paths, lengths 0 to 3 of 4 hold 95% of their total, with 93.750% of all"
        " paths; the mean length is 1.3",
        "by the norms of the exact sums, lengths 0 to 2 of 4 hold 95% of the sum of their norms, with 68.750% of all"
        " paths; the mean length is 0.8",
        "by the exact shares ⟨g_k, g⟩/‖g‖², lengths 1 to 3 of 4 hold 95% of the gradient, with 87.500% of all paths;"
        " the mean length is 1.6",
    ]


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
        (["paths", "--images", "0"], "images takes a whole number above 0, not 0"),
        (["paths", "--batch_size", "0"], "batch_size takes a whole number above 0, not 0"),
        (["paths", "--samples", "-1"], "samples takes a whole number, 0 or above, not -1"),
        (["paths", "--longest", "-1"], "longest takes a whole number, 0 or above, not -1"),
        (["paths", "--seed", "-1"], "seed takes a whole number, 0 or above, not -1"),
        (["ensemble", "--members", "0"], "members takes a whole number above 0, not 0"),
        (["ensemble", "--seed", "-1"], "seed takes a whole number, 0 or above, not -1"),
        (["responses", "--images", "-3"], "images takes a whole number above 0, not -3"),
        (["responses", "--seed", "x"], "seed takes a whole number, 0 or above, not x"),
        (["paths", "--data", "datamodules.FashionMNIST", "--data.root", "/nowhere"], "nowhere"),
    ],
)
def test_wrong_settings_are_explained(checkpoint, tmp_path, capsys, options, words):
    path, _ = checkpoint()
    command, *options = options
    assert fathom.main([command, path, *DIGITS, *options, "--out", str(tmp_path)]) in (1, 2)
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
    subject = open_subject(path, Digits())
    hits = [implicit_ensemble(subject.net, *batch, members=5) for batch in subject.batches(48)]
    rule = sum(batch.rule for batch in hits).item()
    averaged, single = sum(batch.averaged for batch in hits).tolist(), sum(batch.single for batch in hits).tolist()
    assert [48 - int(row["errors"]) for row in table] == [rule, *averaged]
    assert [48 - int(row["errors_alone"]) for row in table] == [rule, *single]
    for row in table:
        assert float(row["error"]) == pytest.approx(int(row["errors"]) / 48, abs=1e-6)
        assert float(row["error_alone"]) == pytest.approx(int(row["errors_alone"]) / 48, abs=1e-6)
    assert rule != 24, "hits would be as many as errors"
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
    found = layer_responses(net, [pixels for pixels, _ in open_subject(plain, Digits()).batches(40)])
    assert [row["name"] for row in table] == list(found)
    assert [float(row["std"]) for row in table] == pytest.approx(list(found.values()), rel=1e-4)
    assert len(rows(tmp_path / "responses.csv")) == 13
    assert (tmp_path / "responses.png").stat().st_size < 400_000


def test_only_what_follows_links_needs_them(tmp_path, capsys):
    arguments = {"name": "test_efficientnet", "num_classes": 10, "in_channels": 1}
    path = str(tmp_path / "timm.ckpt")
    write_atomically(classifier_checkpoint(TimmBackbone(**arguments), arguments), path)
    options = [*DIGITS, "--data.image_size", "32", "--images", "4", "--out", str(tmp_path)]
    assert fathom.main(["responses", path, *options]) == 0
    assert len(rows(tmp_path / "responses.csv")) > 4
    for command, sentence in (
        *((command, "EfficientNet can't be taken apart") for command in ("lesion", "reorder", "paths")),
        ("ensemble", "this TimmBackbone was not trained with stochastic depth"),
    ):
        capsys.readouterr()
        assert fathom.main([command, path, *options]) == 1
        assert sentence in capsys.readouterr().err
