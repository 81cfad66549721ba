"""The ladder and the other plans: what each rung adds, and that what is missing is trained, once."""

import csv

import pytest
import yaml

from experiments.__main__ import main
from experiments.bag_of_tricks.arms import TEACHES, sheet_of
from experiments.bag_of_tricks.tricks import BASELINE, PLANS, RUNGS

SMALL = [
    *("--data", "datamodules.Digits", "--data.train_size", "16", "--data.batch_size", "8"),
    *("--model.net.init_args.width", "2", "--model.net.init_args.depth", "8"),
    *("--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"),
]


def leaves(tree, path=()):
    """Settings of a YAML by their path."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {key: value for name, child in tree.items() for key, value in leaves(child, (*path, name)).items()}


def test_every_rung_adds_one_trick():
    baseline, *added = [yaml.safe_load(path.read_text()) for path in (BASELINE, *RUNGS.values())]
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


@pytest.mark.parametrize("plan", PLANS)
def test_an_arm_is_its_files_and_the_flags_and_distilled_ones_are_taught(plan, tmp_path):
    sheet = sheet_of(plan, 2, ["--data.root", "data"], tmp_path)
    for name, on in PLANS[plan].items():
        files = [word.rpartition("/")[2] for word in sheet.arms[name].words if word.endswith(".yaml")]
        assert [file for file in files if file[:2] > "00" and file != "unscaled.yaml"] == [
            path.name for trick, path in RUNGS.items() if trick in on
        ]
        assert sheet.arms[name].words[-2:] == ("--data.root", "data")
        assert sheet.arms[name].teacher == (TEACHES if "distillation" in on else None)
    (claim,) = sheet.claims.values()
    assert (list(claim.arms), claim.looks) == (list(PLANS[plan]), (2,))


@pytest.fixture
def climb(tmp_path, monkeypatch):
    """Runs a rung of the ladder, which is taught, on a few digits."""
    monkeypatch.setitem(PLANS, "ladder", {"09_distillation": frozenset(["linear_scaling", "distillation"])})

    def run(*flags):
        places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        code = main(["ladder", *SMALL, *places, "--seeds", "1", *flags])
        with (tmp_path / "results" / "ladder" / "trainings.csv").open() as file:
            return code, list(csv.DictReader(file))

    return run


def test_what_is_missing_is_trained_once(climb, tmp_path, capsys):
    code, rows = climb()
    assert code == 0
    assert sorted(row["arm"] for row in rows) == ["09_distillation", TEACHES]
    assert all(0 <= float(row["val_error"]) <= 100 for row in rows)
    assert 0 < (tmp_path / "results" / "ladder.png").stat().st_size < 400_000
    (config,) = (tmp_path / "runs").glob("09_distillation-*/09_distillation/*/config.yaml")
    taught = yaml.safe_load(config.read_text())
    assert taught["model"]["class_path"] == "lit_models.Distillation"
    assert f"/{TEACHES}/" in taught["model"]["init_args"]["teacher"]

    capsys.readouterr()
    assert climb() == (0, rows)
    assert "training" not in capsys.readouterr().out.replace("trainings.csv", "")


@pytest.mark.parametrize("flags", [["--jobs", "-1"], ["--seeds", "0"]])
def test_a_number_that_trains_nothing_is_refused(flags, tmp_path, capsys):
    assert main(["ladder", *flags, "--results", str(tmp_path)]) != 0
    assert flags[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plan_without_residuals_is_refused_before_it_trains(tmp_path, capsys):
    assert main(["ladder", "--plan", "warmup_by_batch", "--seeds", "1", "--results", str(tmp_path)]) == 1
    assert "at least 2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
