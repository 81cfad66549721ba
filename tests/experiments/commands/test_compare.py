"""Plots and tables from what runs wrote."""

import csv
import json
import subprocess
import sys

import pytest

from experiments.__main__ import main

COLUMNS = ["epoch", "step", "train/loss", "train/top1", "val/top1"]


@pytest.fixture
def run(tmp_path):
    """Writes a run directory as the CSV logger does: rows within the epoch, and one at its end for each stage."""

    def write(experiment, name, top1s, summary=None):
        directory = tmp_path / "runs" / experiment / name
        directory.mkdir(parents=True)
        with open(directory / "metrics.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for epoch, top1 in enumerate(top1s):
                for step, loss in ((9, 2.0), (19, 1.0)):
                    writer.writerow({"epoch": epoch, "step": 20 * epoch + step, "train/loss": loss - epoch / 10})
                writer.writerow({"epoch": epoch, "step": 20 * epoch + 19, "val/top1": top1})
        if summary:
            (directory / "summary.json").write_text(json.dumps(summary))
        return directory

    return write


def compare(capsys, *args):
    code = main(["compare", *map(str, args)])
    return code, capsys.readouterr()


def test_curves_of_several_runs(run, tmp_path, capsys):
    plain = run("plain", "1", [0.1, 0.2], {"parameters": 12345, "macs": 678, "seconds": 90.0, "epochs": 2})
    run("residual", "old", [0.9])
    run("residual", "young", [0.3, float("nan"), 0.5])
    out = tmp_path / "plots" / "depth"
    code, printed = compare(
        capsys, plain, tmp_path / "runs" / "residual", "--metric", "train/loss,val/top1", "--out", out
    )
    assert code == 0, printed.err
    with open(f"{out}.csv", newline="") as file:
        rows = [(row["run"], row["metric"], int(row["epoch"]), row["value"]) for row in csv.DictReader(file)]
    assert rows == [
        *[("plain", "train/loss", epoch, value) for epoch, value in enumerate(["1.5", "1.4"])],
        *[("plain", "val/top1", epoch, value) for epoch, value in enumerate(["0.1", "0.2"])],
        *[("residual", "train/loss", epoch, value) for epoch, value in enumerate(["1.5", "1.4", "1.3"])],
        *[("residual", "val/top1", epoch, value) for epoch, value in enumerate(["0.3", "nan", "0.5"])],
    ]
    png = (tmp_path / "plots" / "depth.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) < 100_000
    for words in ("12.35 k", "678", "45", "0.2 (1)", "0.5 (2)"):
        assert words in printed.out


def test_the_table_of_six_runs_is_80_columns_wide(run, tmp_path, capsys):
    names = [f"resnet110_stochastic_depth_long_{letter}_cifar10" for letter in "abcdef"]
    summary = {"parameters": 23_547_178, "macs": 4_320_000_000, "seconds": 123456.0, "epochs": 3}
    directories = [run(name, "1", [0.12345, 0.123456, 0.1234567], summary) for name in names]
    code, printed = compare(capsys, *directories, "--metric", "train/loss,val/top1", "--out", tmp_path / "comparison")
    assert code == 0
    lines = printed.out.splitlines()[:-1]  # the last has paths
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "23.55 M" in line]
    assert len(rows) == 6
    assert {" ".join(row.split()[1:]) for row in rows} == {"23.55 M 4.32 G 4.12e+04 1.3 (2) 0.1235 (2)"}
    joined = "".join(line.split()[0] for line in lines if line.strip())
    assert all(name in joined for name in names)


def test_evaluations_are_passed_over(run, tmp_path, capsys):
    """Those that lie inside the run, and those that lie beside it."""
    trained = run("plain", "20260101", [0.1, 0.4])
    for evaluation in (trained / "test" / "20260102", trained.with_name("20260103")):
        evaluation.mkdir(parents=True)
        (evaluation / "metrics.csv").write_text("epoch,step,val/top1\n1,2,0.9\n")
    code, printed = compare(capsys, trained.parent, "--metric", "val/top1", "--out", tmp_path / "plot")
    assert code == 0
    assert "0.4 (1)" in printed.out
    code, printed = compare(capsys, trained / "test", "--metric", "val/top1", "--out", tmp_path / "plot")
    assert code == 1
    assert "no metrics.csv of a training run" in printed.err


def test_nothing_heavy_is_imported_before_it_is_needed():
    script = "import sys; from experiments.__main__ import main; main(['compare', '--help'])"
    script += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "run directories" in done.stdout
    assert not {"lightning", "torch", "numpy", "matplotlib", "wandb"} & set(done.stderr.split())


def test_runs_of_one_experiment_keep_their_names(run, tmp_path, capsys):
    seeds = [run("plain", name, [0.1]) for name in ("a", "b")]
    code, _ = compare(capsys, *seeds, "--metric", "val/top1", "--out", tmp_path / "seeds")
    assert code == 0
    assert {line.split(",")[0] for line in (tmp_path / "seeds.csv").read_text().splitlines()[1:]} == {
        "plain/a",
        "plain/b",
    }


def test_without_a_metric_each_task_is_shown_by_its_own(run, tmp_path, capsys):
    classifier, detector, unfinished = run("plain", "1", [0.1]), run("detector", "1", [0.3]), run("begun", "1", [])
    metrics = (detector / "metrics.csv").read_text()
    (detector / "metrics.csv").write_text(metrics.replace("val/top1", "val/map").replace("train/top1", "train/acc"))
    (detector / "config.yaml").write_text("best_checkpoint: {monitor: val/map}")
    for runs, shown in (
        ([classifier], {"val/top1"}),
        ([detector], {"val/map"}),
        ([classifier, detector], {"val/map", "val/top1"}),
    ):
        code, printed = compare(capsys, *runs, "--out", tmp_path / "shown")
        assert code == 0, printed.err
        rows = list(csv.DictReader((tmp_path / "shown.csv").read_text().splitlines()))
        assert {row["metric"] for row in rows} == shown
    code, printed = compare(capsys, unfinished, "--out", tmp_path / "begun")
    assert code == 1
    assert "no run has logged train/loss" in printed.err


def test_mistakes_are_named_and_leave_nothing(run, tmp_path, capsys):
    directory = run("plain", "1", [0.1])
    out = tmp_path / "plot"
    for args, words in (
        ([directory, "--metric", "val/top5"], "no run has logged val/top5; did you mean val/top1?"),
        ([tmp_path / "nowhere"], "nowhere has no metrics.csv"),
        ([], "runs"),
    ):
        code, printed = compare(capsys, *args, "--out", out)
        assert code != 0
        assert words in printed.err
        assert printed.err.count("fathom: ") == 1
    assert not list(tmp_path.glob("plot*"))


def test_the_cost_of_an_inception_module(capsys):
    """CS231n, lecture 9: 854M, and 271.35M where the slide says 358M."""
    assert main(["inception"]) == 0
    printed = capsys.readouterr().out
    for words in ("25.69 M", "346.82 M", "481.69 M", "854.20 M", "12.85 M", "86.70 M", "120.42 M", "271.35 M"):
        assert words in printed
    assert "358.06M" in printed
    assert "672" in printed
    assert "480" in printed


@pytest.fixture
def seeds(run):
    """Three rates of three seeds, whose validation accuracies are rate + seed / 100."""
    for lr in ("0.05", "0.1", "0.2"):
        for seed in (0, 1, 2):
            directory = run("rates", f"2026010{seed}-{lr}", [0.1, float(lr) + seed / 100], {"seconds": 90, "epochs": 2})
            (directory / "config.yaml").write_text(
                f"seed_everything: {seed}\nmodel: {{class_path: A, init_args: {{lr: {lr}, net: {{class_path: B}}}}}}\n"
            )
    return directory.parent


def test_seeds_become_one_row_with_mean_and_deviation(seeds, tmp_path, capsys):
    test = seeds / "20260105-0.1" / "test" / "1"
    test.mkdir(parents=True)
    (test / "metrics.csv").write_text("epoch,step,test/top1\n0,1,0.9\n")
    options = ["--group-by", "model.lr", "--over", "seed", "--metric", "val/top1", "--out", tmp_path / "rates"]
    code, printed = compare(capsys, seeds.parent, *options)
    assert code == 0, printed.err
    rows = [line.split() for line in printed.out.splitlines() if line.startswith(" lr ")]
    assert [row[:3] for row in rows] == [["lr", "0.05", "3"], ["lr", "0.1", "3"], ["lr", "0.2", "3"]]
    assert "0.0600 ± 0.0100" in printed.out
    assert "0.2100 ± 0.0100" in printed.out
    assert max(map(len, printed.out.splitlines()[:-1])) <= 80
    with open(tmp_path / "rates.csv", newline="") as file:
        last = [row for row in csv.DictReader(file) if row["run"] == "lr 0.2"][-1]
    assert (last["value"], last["std"], last["runs"]) == ("0.21", "0.01", "3")
    assert {path.suffix for path in tmp_path.glob("rates.*")} == {".csv", ".png", ".svg", ".pdf"}


def test_groups_of_runs_that_differ_otherwise_are_refused(seeds, tmp_path, capsys):
    code, printed = compare(capsys, seeds, "--group-by", "model", "--out", tmp_path / "rates")
    assert code == 1
    assert (
        "the runs of model A differ in model.lr (0.05 and 0.1), not in seed alone: add it to --group-by" in printed.err
    )
    code, printed = compare(capsys, seeds, "--group-by", "model.rate", "--out", tmp_path / "rates")
    assert code == 1
    assert "no run has the setting model.rate" in printed.err
    assert not list(tmp_path.glob("rates.*"))


def test_a_configuration_without_settings_is_one_sentence(run, fathom):
    directory = run("plain", "1", [0.1])
    (directory / "config.yaml").write_text("- 1")
    code, sentence = fathom("compare", directory)
    assert (code, sentence.partition(":")[0]) == (1, f"{directory}/config.yaml can't be read (it holds no settings)")
