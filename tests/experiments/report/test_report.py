"""What a report says of runs: whole ones, killed ones, hostile ones, and those whose data are gone."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from experiments.cli.typed import typed, typed_command
from experiments.report.charts import Chart, Line
from experiments.report.page import evaluated, render
from experiments.report.predictions import Picture, Predictions
from experiments.report.run_files import RunFiles, read_run
from experiments.report.sections import _means, commands, costs, differences, headline, what_was_run

HOSTILE = "</title><script>alert(1)</script>\"' onload=x"


class Elements(HTMLParser):
    """Names of all elements, and the addresses they load."""

    def __init__(self, text):
        super().__init__()
        self.names, self.addresses, self.handlers = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture
def copied(tiny_run, tmp_path):
    """A copy of the tiny run that a test may damage."""
    return shutil.copytree(tiny_run, tmp_path / "tiny" / tiny_run.name)


def test_a_whole_run(quickstart_run, fathom, tmp_path):
    """A merged network of digits, with everything of which it has something."""
    out = tmp_path / "folder" / "report.html"
    assert fathom("report", quickstart_run[0].parent, "--images", "100", "--out", out) == (0, "")
    text = out.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    summary = json.loads((quickstart_run[0] / "summary.json").read_text())
    for said in (
        *("VanillaNet", "trained on Digits", "λ of the activations", "Learning rate", "Proof of the merge"),
        *('table class="matrix"', "100 test images", "fathom fit --config", f"{summary['parameters']:,}"),
        f"{summary['merge']['max_logit_difference_float64']:.2g}",
        str(summary["commit"]),
    ):
        assert said in text, said
    elements = Elements(text)
    assert {"svg", "details", "table", "img", "pre"} <= elements.names
    assert not {"script", "iframe", "object"} & elements.names
    assert all(address.startswith(("data:", "#")) for address in elements.addresses)
    assert list(out.parent.iterdir()) == [out]


def test_all_that_is_of_a_run_is_escaped(copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["name"] = config["model"]["class_path"] = config["model"]["init_args"]["optimizer"] = HOSTILE
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((copied / "summary.json").read_text())
    summary |= {"error": HOSTILE, "status": HOSTILE, "commit": HOSTILE, "merge": {HOSTILE: HOSTILE}}
    (copied / "summary.json").write_text(json.dumps(summary))
    metrics = (copied / "metrics.csv").read_text().replace("val/top1", "val/<script>")
    (copied / "metrics.csv").write_text(metrics)
    run = read_run(copied, HOSTILE)
    picture = Picture("data:image/png;base64,", HOSTILE, False, HOSTILE, 1.0, 8)
    few = Predictions(4, 0.5, [HOSTILE, "b"], [[1, 1], [1, 1]], [], [picture], [picture])
    many = few._replace(matrix=[], confused=[(HOSTILE, HOSTILE, 3)])
    elements = Elements(render([run, run], [few, many]))
    assert "script" not in elements.names
    assert elements.handlers == []


def test_a_run_that_was_killed_and_has_no_data(copied, fathom, tmp_path):
    """Data gone, checkpoints gone, never tested, status training."""
    shutil.rmtree(copied / "checkpoints")
    (copied / "summary.json").write_text('{"status": "training", "metrics": {}}')
    out = tmp_path / "report.html"
    assert fathom("report", copied, "--out", out) == (0, "")
    text = out.read_text()
    assert "still running, or was killed: its last epoch with metrics is 1" in text
    assert "it has no checkpoints/best.ckpt" in text
    assert "It was not tested" in text


def test_the_exact_command_and_what_resumed_it(tiny_run, tiny_config, copied):
    root = tiny_run.parents[1]
    began = f"fathom fit --config {tiny_config} --trainer.default_root_dir {root}"
    assert commands(read_run(tiny_run, "tiny")).splitlines()[:2] == ["# the exact command", began]
    summary = json.loads((copied / "summary.json").read_text())
    resumed = "fathom resume '~/my runs/1'"
    (copied / "summary.json").write_text(json.dumps(summary | {"commands": [began, resumed]}))
    assert f"\n# resumed by\n{resumed}\n# trains it again" in commands(read_run(copied, "tiny"))
    (copied / "summary.json").write_text(json.dumps(summary | {"commands": []}))
    assert commands(read_run(copied, "tiny")).startswith("# trains it again with every setting")
    with typed(["fit", "--data.root", "s3://me:secret@host/a b", "--data=https://host:80/c@d"]):
        assert typed_command() == "fathom fit --data.root 's3://me@host/a b' --data=https://host:80/c@d"


def test_what_a_detector_has_no_part_in(copied):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["model"]["class_path"] = "lit_models.Detector"
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    run = read_run(copied, "detector")
    assert evaluated(run, 100, 1) == "A confusion matrix is made of a classifier, and this run trained a Detector."


def test_the_differences_of_two_runs(copied, tiny_run):
    path = copied / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["lr"] = 0.5
    callbacks = config["trainer"]["callbacks"] or []
    extra = {"class_path": "callbacks.StochasticDepth", "init_args": {"survival_prob": 0.5}}
    config["trainer"]["callbacks"] = [extra, *callbacks]
    path.write_text(yaml.safe_dump(config))
    one, other = read_run(tiny_run, "one"), read_run(copied, "other")
    found = dict(differences([one, other]))
    assert found["model.lr"][1] == "0.5"
    assert found["trainer.callbacks"] == ["–", "StochasticDepth"]
    assert found["trainer.callbacks.StochasticDepth.survival_prob"] == ["–", "0.5"]
    assert "StochasticDepth (survival prob 0.5" in what_was_run(other)
    assert differences([one, one]) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", b'{"status": ', "summary.json can't be read"),
        ("config.yaml", b"model: [", "config.yaml can't be read"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml can't be read"),
        ("metrics.csv", b"epoch,train/loss\n0,much\n", "metrics.csv can't be read"),
    ],
)
def test_a_damaged_file_is_one_sentence(name, content, words, copied, fathom, tmp_path):
    (copied / name).write_bytes(content)
    out = tmp_path / "report.html"
    out.write_text("before")
    code, sentence = fathom("report", copied, "--out", out)
    assert code == 1
    assert words in sentence
    assert out.read_text() == "before"
    code, sentence = fathom("compare", copied, "--out", tmp_path / "curves")
    assert code == 1
    assert words in sentence


def test_wrong_words_are_one_sentence(tiny_run, fathom, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((tmp_path / "empty",), "empty has no metrics.csv of a training run"),
        ((tmp_path / "nowhere",), "nowhere has no metrics.csv of a training run"),
        ((tiny_run, "--out", tmp_path), "is a folder; give a file"),
        ((tiny_run, "--images", "-1"), "--images is -1"),
        ((tiny_run, "--image", "3"), "image"),
    ):
        code, sentence = fathom("report", *words)
        assert code != 0
        assert said in sentence


def test_a_chart_has_its_values_as_hover_and_as_table():
    points = [(1.0, 0.5), (2.0, float("nan")), (3.0, 0.75), (4.0, 0.75)]
    chart = Chart("Top-1", "epoch", [Line("validation", points)], percent=True)
    (line,) = chart.drawn()["lines"]
    assert [text for _, _, text in line["points"]] == [
        f"validation, epoch {x}: {y}" for x, y in ((1, "50%"), (3, "75%"), (4, "75%"))
    ]
    assert line["path"].count("M") == 2  # nothing is drawn over a gap
    heights = [y for _, y, _ in line["points"]]
    assert heights[0] > heights[1] == heights[2]
    assert chart.table() == (["epoch", "validation"], [["1", "50%"], ["2", "nan"], ["3", "75%"], ["4", "75%"]])
    assert "V" in chart._replace(steps=True).drawn()["lines"][0]["path"]


def test_one_epoch_is_at_one_tick():
    (tick,) = Chart("Loss", "epoch", [Line("training", [(1.0, 0.5)])]).drawn()["x_ticks"]
    assert tick[1] == "1"


def test_a_long_curve_stays_small():
    line = Line("train", [(float(step), 1 / step) for step in range(1, 100_000)])
    drawn = Chart("Loss", "step", [line], log=True).drawn()["lines"][0]
    assert len(re.findall("[ML]", drawn["path"])) == 200
    assert len(drawn["points"]) == 60


def test_the_time_of_an_epoch_and_the_best_of_a_loss():
    metrics = {"epoch": [0, 1, 2], "val/loss": [2.0, 1.0, 3.0]}
    config = {"best_checkpoint": {"monitor": "val/loss", "mode": "min"}}
    run = RunFiles("run", Path(), config, {"seconds": 120, "epochs": 4}, metrics, [])
    assert dict(costs(run))["time an epoch"] == "30 s"
    assert dict(headline(run))["best validation loss"] == "1"


def test_errors_with_statistics_estimated_anew_are_kept_apart():
    row = {"kind": "random", "size": "1", "error": "0.2", "reestimated_on": ""}
    rows = [row | {"kind": "none", "size": "0"}, row, row | {"error": "0.9", "reestimated_on": "1000"}]
    assert _means(rows) == [(0, 0.2), (1, 0.2)]
