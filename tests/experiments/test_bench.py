"""The benchmarks run, and their ratios are what they say."""

import logging
import signal
import time
from types import SimpleNamespace

import pytest
import torch

import experiments.bench.latency as latency_module
from experiments.__main__ import main
from experiments.bench.forms import prepare
from experiments.bench.latency_page import page
from experiments.bench.official_form import STAGES, official_form
from experiments.bench.stochastic_depth import Variant, _table, _Timer
from experiments.bench.timing import in_turn, ratio_and_spread
from experiments.claims import timing as claims_timing
from experiments.unravel.records import read_records
from lit_models import ImageClassifier, VanillaNet

REFERENCE = "run + teacher's forward pass"


def test_a_ratio_is_taken_within_each_round():
    """The median of ratios: a machine that is slow for a round slows both."""
    assert ratio_and_spread([1.0, 20.0, 3.0], [1.0, 10.0, 2.0]) == ("1.500", "1.000–2.000")


def test_nobody_is_always_first():
    assert [in_turn("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_one_thread_is_timed_by_its_own_clock(monkeypatch):
    """What others do on the machine meanwhile, such as a sleep, counts neither for a claim nor for stochastic depth."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    cpu = torch.device("cpu")
    (rounds,) = claims_timing._in_rounds([lambda: time.sleep(0.05)], cpu)
    timer = _Timer()
    for _ in range(2):
        timer.on_train_batch_start(None, SimpleNamespace(device=cpu))
        time.sleep(0.05)
    assert max(*rounds, *timer.seconds) < 0.04


def test_steps_are_timed_side_by_side(capsys, caplog):
    caplog.set_level(logging.ERROR, "lightning.pytorch")  # as the benchmark does; it is undone after the test
    sizes = ["--depth", "8", "--teacher_depth", "8", "--batch_size", "2", "--rounds", "1", "--steps", "1"]
    sizes += ["--precisions", "[16-mixed]", "--backend", "aot_eager"]
    assert main(["bench", "step", *sizes]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    named = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert [row[1] for row in named.values()] == ["", "bare loop", "Lightning", "run", "run", "", REFERENCE]
    assert "bf16-mixed" in printed
    assert all(float(row[0]) > 0 for row in named.values())
    added = [float(named[name][0]) for name in ("run", "teacher's forward pass", "run, distillation")]
    assert float(named["run, distillation"][2]) == pytest.approx(added[2] / (added[0] + added[1]), rel=0.02)


def test_an_epoch_is_timed_beside_plain_pytorch(capsys, caplog):
    caplog.set_level(logging.ERROR, "lightning.pytorch")
    sizes = ["--depth", "8", "--images", "40", "--batch_size", "4", "--rounds", "1", "--precisions", "[16-mixed]"]
    assert main(["bench", "epoch", *sizes, "--backend", "aot_eager"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    assert ["bf16-mixed" in printed, len(rows), *(len(row) for row in rows)] == [True, 4, 4, 4, 4, 4]
    plain, *others = [[cell.strip() for cell in row] for row in rows]
    for _, _, ratio, spread in others:
        least, greatest = map(float, spread.split("–"))
        assert 0 < least <= float(ratio) <= greatest
    assert plain[2] == ""


def test_resumption_is_timed_in_float32_and_in_the_default_precision(capsys, caplog):
    caplog.set_level(logging.ERROR, "lightning.pytorch")
    assert main(["bench", "resumption", "--depth", "8", "--batch_size", "2", "--rounds", "1", "--steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert ("32-true" in printed, "bf16-mixed" in printed, printed.count("│ resumable")) == (True, True, 2)


def test_lesions_are_timed_in_float32_and_in_the_default_precision(capsys):
    sizes = ["--depth", "8", "--images", "2", "--batch_size", "2", "--gradient_images", "2"]
    assert main(["bench", "lesion", *sizes]) == 0
    printed = capsys.readouterr().out
    assert ("32-true" in printed, "bf16-mixed" in printed, printed.count("│ shared beginnings")) == (True, True, 2)


def test_detector_segmenter_and_their_pipelines_are_timed_beside_those_of_torchvision(voc_tree, street_tree, capsys):
    folders = ["--detection", str(voc_tree), "--segmentation", str(street_tree)]
    sizes = ["--image_size", "64", "--batch_size", "2", "--rounds", "1", "--precisions", "[16-mixed]"]
    assert main(["bench", "transfer", *folders, *sizes]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| torchvision v2 on PIL | ") == printed.count("| fathom | ") == 2
    assert "bf16-mixed" in printed
    assert printed.count("torchvision fasterrcnn_resnet50_fpn")
    assert printed.count("torchvision fcn_resnet50")


def test_a_time_is_divided_by_the_work_that_its_round_did():
    constant = Variant("constant depth", None, seconds=[2.0, 4.0, 4.0], executed=[1.0, 1.0, 1.0])
    ours = Variant("ours, batch", None, "batch", seconds=[1.0, 3.0, 2.0], executed=[0.5, 0.6, 0.8])
    cells = {column.header: list(column.cells) for column in _table("", [constant, ours]).columns}
    assert cells["executed work"] == ["1.000", "0.633"]
    assert cells["time"] == ["1.00", "0.50"]
    assert cells["time / work"] == ["1.00", "1.00"]


def test_the_official_form_computes_what_a_merged_vanillanet_does():
    for depth in STAGES:
        ours = VanillaNet(10, depth=depth, width=4, reparameterized=True).eval()
        official = official_form(depth, 10, width=4)
        for theirs, value in zip(official.parameters(), ours.parameters(), strict=True):
            theirs.data.copy_(value.data.normal_(std=0.3))
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(official(images), ours(images))


TINY_LATENCY = ("--networks", "[vanillanet5]", "--width", "4", "--image_size", "64", "--rounds", "2")


def test_forms_are_timed_beside_the_official_one_and_the_floors(capsys, tmp_path, monkeypatch):
    """A form that can't be compiled is named and left out; tables of another run stay in the file."""

    def prepared(setting, name, form, layout):
        if form == "aoti":
            raise RuntimeError("no compiler\nand more")
        return prepare(setting, name, form, layout)

    monkeypatch.setattr(latency_module, "prepare", prepared)
    out = tmp_path / "latency.csv"
    flags = [*TINY_LATENCY, "--forms", "[eager,aoti,onnx]", "--out", str(out)]
    assert main(["bench", "latency", *flags, "--precisions", "[float32]", "--minutes", "0.0001"]) == 0
    printed = capsys.readouterr()
    assert "vanillanet5, aoti, channels_last is left out: no compiler\n" in printed.err
    assert "1 rounds" in printed.out  # no other begins after so short a time
    assert main(["bench", "latency", *TINY_LATENCY, "--forms", "[eager]", "--out", str(out)]) == 0
    rows = read_records(out)
    assert [(row["network"], row["form"], row["precision"]) for row in rows] == [
        (network, "eager", precision)
        for precision in ("float32", "bfloat16")
        for network in ("official vanillanet5", "vanillanet5")
    ]
    assert [row["rounds"] for row in rows] == ["2"] * 4
    assert out.with_suffix(".md").read_text() == page(rows)


def test_an_interrupt_within_a_trainer_says_so(fathom, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageClassifier, "training_step", interrupted)
    before = signal.getsignal(signal.SIGINT)  # Lightning ignores it from then on
    try:
        small = ["--depth", "8", "--batch_size", "2", "--precisions", "[32-true]"]
        assert fathom("bench", "resumption", *small) == (130, "interrupted")
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_the_rounds_that_are_whole(capsys, tmp_path, monkeypatch):
    def interrupted(variants, number):
        if number == 2:
            raise KeyboardInterrupt
        return in_turn(variants, number)

    monkeypatch.setattr(latency_module, "in_turn", interrupted)
    flags = [*TINY_LATENCY[:-1], "9", "--forms", "[eager]", "--out", str(tmp_path / "table.csv")]
    assert main(["bench", "latency", *flags]) == 130
    rows = read_records(tmp_path / "table.csv")
    assert [(row["precision"], row["rounds"]) for row in rows] == [("float32", "2")] * 2
    assert "official vanillanet5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--networks", "[vanillanet4]"), "vanillanet4: there are vanillanet5"),
        (("--batches", "[0]"), "above 0"),
        (("--out", "table.txt"), "ends in .csv"),
    ],
)
def test_what_can_not_be_timed_is_said(flags, words, capsys):
    assert main(["bench", "latency", *flags]) != 0
    assert words in capsys.readouterr().err


def test_the_page_says_where_the_target_is_missed_and_why():
    row = {"batch": "1", "precision": "float32", "image_size": "224", "width": "512", "hardware": "cpu"}
    row |= {"rounds": "7", "gmacs_a_second": "80", "gb_a_second": "10", "fastest": "1", "slowest": "1"}
    row |= {"floor_weights": "10", "layout": "", "of_official": "1.000", "form": "eager"}
    rows = []
    for depth, ms, ratio, floor in ((5, "72", "0.720", "67"), (9, "72", "0.720", "36"), (13, "50", "0.500", "40")):
        of_network = row | {"floor_macs": floor}
        rows += [
            of_network | {"network": f"official vanillanet{depth}", "ms": "100"},
            of_network | {"network": f"vanillanet{depth}", "form": "onnx", "ms": ms, "of_official": ratio},
            of_network | {"network": f"vanillanet{depth}", "form": "packed", "ms": "1", "of_official": "0.010"},
        ]
    summary = [line for line in page(rows).splitlines() if line.startswith("| vanillanet")][:3]
    assert [line.split(" | ")[5:] for line in summary] == [
        ["0.720", "0.670 (multiply-adds)", "can't be: the floor is above it |"],
        ["0.720", "0.360 (multiply-adds)", "no: it takes 2.0 times its floor |"],
        ["0.500", "0.400 (multiply-adds)", "yes |"],
    ]


def test_the_stored_page_of_latency_follows_from_its_rows(repository):
    rows = read_records(repository / "experiments" / "bench" / "latency.csv")
    assert (repository / "experiments" / "bench" / "latency.md").read_text(encoding="utf-8") == page(rows)


def test_a_step_without_pairs_keeps_less(capsys):
    sizes = ["--width", "4", "--image_size", "16", "--batch_size", "4", "--rounds", "1", "--depth", "5"]
    assert main(["bench", "merged-pairs", *sizes]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    assert ("32-true" in printed, "bf16-mixed" in printed) == (True, True)
    assert [row[0].strip() for row in rows] == ["pairs", "merged"] * 2
    assert float(rows[1][5]) < 0.9
