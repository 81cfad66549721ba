"""The ladder: what each rung adds, and that it trains what is missing, once."""

import csv
import json

import pytest
import yaml

from experiments.__main__ import main
from experiments.cli.command_line import FathomCLI
from experiments.commands import ladder


def leaves(tree, path=()):
    """Settings of a YAML by their path."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {key: value for name, child in tree.items() for key, value in leaves(child, (*path, name)).items()}


def test_every_rung_adds_one_trick():
    baseline, *added = [yaml.safe_load(path.read_text()) for path in ladder.RUNGS]
    assert len(added) == 10
    tricks = [set(leaves(rung)) for rung in added]
    for trick in tricks:
        assert 1 <= len(trick) <= 2
    assert sum(map(len, tricks)) == len(set.union(*tricks))
    arguments = baseline["model"]["init_args"]
    assert (arguments["no_bias_decay"], arguments["schedule"], baseline["trainer"]["precision"]) == (
        False,
        "step",
        "32-true",
    )
    assert "zero_gamma" not in arguments["net"]["init_args"]


@pytest.fixture
def climb(tmp_path, monkeypatch, repository):
    """Runs the ladder with three rungs, the last one taught, on a few digits: which experiments were trained."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(ladder, "RUNGS", [ladder.RUNGS[0], ladder.RUNGS[2], ladder.DISTILLATION])
    trained = []

    def run(*flags):
        trained.clear()
        original = FathomCLI.__init__

        def record(cli, args):
            trained.append([word.split("/")[-1] for word in args if word.endswith(".yaml")])
            original(cli, args)

        with monkeypatch.context() as patch:
            patch.setattr(FathomCLI, "__init__", record)
            size = ["--data", "datamodules.Digits", "--data.train_size", "16", "--data.batch_size", "8"]
            net = ["--model.net.init_args.width", "2", "--model.net.init_args.depth", "8"]
            quick = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "2", "--wandb.mode", "disabled"]
            places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
            options = [*size, *net, *quick, "--trainer.enable_progress_bar", "false", *places]
            code = main(["ladder", *options, *flags])
        return code, list(trained)

    return run


def test_what_is_missing_is_trained_once(climb, tmp_path):
    code, trained = climb("--seeds", "3")
    assert code == 0
    baseline, warmup = "00_baseline.yaml", "02_warmup.yaml"
    assert trained == [
        [baseline],
        [baseline, warmup],
        [baseline, warmup, "teacher.yaml"],
        [baseline, warmup, "09_distillation.yaml"],
    ]
    with (tmp_path / "results" / "ladder.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rung"], row["seed"], row["epochs"]) for row in rows] == [
        ("00_baseline", "3", "2"),
        ("02_warmup", "3", "2"),
        ("09_distillation", "3", "2"),
    ]
    assert all(0 <= float(row["val_top1"]) <= 1 for row in rows)
    assert (tmp_path / "results" / "ladder.png").stat().st_size < 400_000
    (config,) = (tmp_path / "runs").glob("*/09_distillation/*/config.yaml")
    taught = yaml.safe_load(config.read_text())
    assert taught["model"]["class_path"] == "lit_models.Distillation"
    assert "/teacher/" in taught["model"]["init_args"]["teacher"]
    assert [callback["class_path"] for callback in taught["trainer"]["callbacks"]] == ["callbacks.LearningRateWarmup"]

    assert climb("--seeds", "3") == (0, [])
    (summary_file,) = (tmp_path / "runs").glob("*/02_warmup/*/summary.json")
    summary = json.loads(summary_file.read_text())
    summary_file.write_text(json.dumps(summary | {"status": "interrupted"}))
    assert climb("--seeds", "3") == (0, [[baseline, warmup]])


def test_other_settings_are_other_runs(climb, monkeypatch):
    monkeypatch.setattr(ladder, "RUNGS", ladder.RUNGS[:1])
    for batches in ("1", "2"):
        code, trained = climb("--seeds", "3", "--trainer.limit_train_batches", batches)
        assert (code, len(trained)) == (0, 1)


def test_a_run_that_validates_nothing_is_named(climb, capsys):
    code, _ = climb("--seeds", "3", "--trainer.limit_val_batches", "0")
    assert code == 1
    assert "validated nothing" in capsys.readouterr().err
