"""The driver with real trainings of a second on real digits."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import yaml

from experiments.__main__ import main
from experiments.claims import driver
from experiments.claims.driver import Driver
from experiments.claims.plan import Training, missing, next_training
from experiments.claims.rows import TRAININGS, Ledger
from experiments.claims.sheet import read_sheet
from experiments.cli.pretrained import facts_of

REGIMES = {
    "D": {
        "title": "digits",
        "scale": "a few digits",
        "epochs": 1,
        "images": 64,
        "config": {
            "model": {
                "init_args": {"net": {"class_path": "lit_models.CIFARResNet", "init_args": {"depth": 8, "width": 2}}}
            },
            "data": {
                "class_path": "datamodules.Digits",
                "init_args": {"image_size": 8, "batch_size": 32, "train_size": 64},
            },
            "trainer": {"max_epochs": 1, "precision": "32-true"},
        },
    }
}
SHORT = {"regime": "D", "seconds": 1}
LONG = {"regime": "D", "seconds": 100, "config": {"trainer": {"max_epochs": 100_000}}}


def claim(name, arms, looks):
    return {
        "id": name,
        "sentence": f"{name} is so.",
        "papers": ["yes", "a paper"],
        "regime": "D",
        "statistic": "every",
        "quantity": "test_error",
        "arms": dict.fromkeys(arms, 1),
        "direction": "less",
        "margin": 101.0,
        "looks": looks,
    }


@pytest.fixture
def toy(tmp_path):
    """Writes a sheet of one paper; gives its folder and that of the runs."""

    def write(arms, claims):
        folder = tmp_path / "sheet"
        (folder / "toy").mkdir(parents=True, exist_ok=True)
        (folder / "regimes.yaml").write_text(yaml.safe_dump(REGIMES))
        pretrained = {"short": "toy"} if "short" in arms else {}
        content = {"title": "Toy", "pretrained": pretrained, "arms": arms, "claims": claims}
        (folder / "toy" / "claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return folder, tmp_path / "runs"

    return write


def words(folder, runs, *more):
    return ["reproduce", "--sheet", str(folder), "--runs", str(runs), *more]


def ledger(folder):
    return Ledger(read_sheet(folder, folder / "regimes.yaml"))


def stored(folder):
    path = folder / "toy" / "trainings.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def fits(runs):
    return sorted(path.parent.name for path in runs.glob("*/*/*/config.yaml"))


def test_what_is_finished_is_never_trained_again(toy, capsys):
    """Nor counted twice: by a second call, with more seeds, with another recipe, and adopted from elsewhere."""
    folder, runs = toy({"short": SHORT}, [claim("T1", ["short"], [1])])
    assert main(words(folder, runs)) == 0
    (row,) = stored(folder)
    assert (row["arm"], row["seed"], row["precision"]) == ("short", "0", "32-true")
    assert 0 <= float(row["test_error"]) <= 100
    assert "1 held" in capsys.readouterr().out
    first = fits(runs)
    assert len(first) == 1
    assert facts_of(folder / "toy" / "pretrained" / "toy.safetensors")["run"] == row["run"]

    assert main(words(folder, runs)) == 0
    assert (fits(runs), stored(folder)) == (first, [row])

    # A lost table is written again from the runs, which are not trained again.
    (folder / "toy" / "trainings.csv").unlink()
    assert (
        main(words(folder, runs.parent / "others", "--jobs", "0", "--runs", str(runs.parent / "others"), str(runs)))
        == 0
    )
    assert (fits(runs), stored(folder)) == (first, [row])

    # Other seeds ask for what is missing, another recipe for all.
    folder, _ = toy({"short": SHORT}, [claim("T1", ["short"], [2])])
    assert missing(ledger(folder).sheet.claims["T1"], ledger(folder)) == [Training("short", 1)]
    changed = SHORT | {"config": {"model": {"init_args": {"lr": 0.07}}}}
    folder, _ = toy({"short": changed}, [claim("T1", ["short"], [1])])
    assert missing(ledger(folder).sheet.claims["T1"], ledger(folder)) == [Training("short", 0)]

    # The page says that the rule was not the one of before.
    assert main(words(folder, runs, "--check")) == 1
    assert "not what the stored rows say" in capsys.readouterr().err


def test_flags_that_change_what_is_learned_are_refused(toy, fathom):
    folder, runs = toy({"short": SHORT}, [claim("T1", ["short"], [1])])
    code, sentence = fathom(*words(folder, runs, "--model.lr", "0.3"))
    assert code == 1
    assert "changes what short learns" in sentence
    assert stored(folder) == []


def test_cheap_claims_and_shared_networks_come_first(toy):
    arms = {"cheap": SHORT, "dear": SHORT | {"seconds": 9}, "shared": SHORT | {"seconds": 6}}
    claims = [claim("T1", ["dear"], [1]), claim("T2", ["shared"], [1]), claim("T3", ["shared", "cheap"], [1])]
    folder, _ = toy(arms, claims)
    book, taken = ledger(folder), []
    while (training := next_training(list(book.sheet.claims.values()), book, taken)) is not None:
        taken.append(training)
    assert [training.arm for training in taken] == ["shared", "cheap", "dear"]


def start(folder, runs, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *words(folder, runs, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def trains(runs):
    return any(runs.glob("*/*/*/summary.json"))


def drive_until(folder, places, condition):
    """A driver whose budget ends when ``condition`` holds."""
    book = ledger(folder)
    driver = Driver(book, list(book.sheet.claims.values()), places, [], 300, 1)

    def end():
        wait_for(condition)
        driver.stop()

    watcher = Thread(target=end)
    watcher.start()
    driver.drive()
    watcher.join()
    assert driver.failures == []


def test_a_budget_that_ends_in_mid_run(toy, capsys):
    """The run writes its checkpoint, leaves no row, and is resumed by the next call, not begun anew."""
    folder, runs = toy({"long": LONG}, [claim("T1", ["long"], [1])])
    drive_until(folder, [runs], lambda: any(runs.glob("*/*/*/checkpoints/last.ckpt")))  # or it has nothing to keep
    (run,) = runs.glob("*/*/*")
    assert summary(run)["status"] == "interrupted"
    elsewhere = runs.with_name("elsewhere")
    drive_until(folder, [elsewhere, runs], lambda: summary(run)["resumed"] == 1)
    assert "going on" in capsys.readouterr().out
    assert (fits(runs), fits(elsewhere), stored(folder)) == ([run.name], [], [])
    assert summary(run)["status"] == "interrupted"


def summary(run):
    return yaml.safe_load((run / "summary.json").read_text())


@pytest.mark.slow
def test_two_drivers_share_the_work(toy):
    other = SHORT | {"config": {"model": {"init_args": {"lr": 0.05}}}}
    folder, runs = toy({"a": SHORT, "b": other}, [claim("T1", ["a", "b"], [1])])
    drivers = [start(folder, runs) for _ in range(2)]
    try:
        assert [driver.wait(500) for driver in drivers] == [0, 0]
    finally:
        for driver in drivers:
            driver.terminate()  # its children end with it
            driver.wait(60)
    assert sorted((row["arm"], row["seed"]) for row in stored(folder)) == [("a", "0"), ("b", "0")]
    assert len(fits(runs)) == 2


@pytest.mark.slow
def test_a_driver_that_is_killed(toy, capsys):
    """Its training goes on by itself; another driver leaves it alone, and once it has ended resumes it."""
    folder, runs = toy({"long": LONG}, [claim("T1", ["long"], [1])])
    driver = start(folder, runs)
    try:
        wait_for(lambda: trains(runs))
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
        assert main(words(folder, runs, "--budget", "60s")) == 0
        assert "that an earlier call began trains it" in capsys.readouterr().out
        (lock,) = runs.glob("*/*/*/.lock")
        child = yaml.safe_load(lock.read_text())["pid"]
        os.kill(child, signal.SIGKILL)
        time.sleep(1)
        assert main(words(folder, runs, "--budget", "12s")) == 0
        assert "going on" in capsys.readouterr().out
        assert len(fits(runs)) == 1
    finally:
        driver.kill()
        for lock in runs.glob("*/*/*/.lock"):
            with suppress(OSError):
                os.kill(yaml.safe_load(lock.read_text())["pid"], signal.SIGKILL) if lock.read_text() else None


def test_a_row_has_the_errors_of_its_parts(monkeypatch):
    stored = []
    monkeypatch.setattr(driver, "store", lambda path, record: stored.append(record))
    facts = ("seed", "epochs", "steps", "seconds", "parameters", "hardware", "precision", "data")
    metrics = {"train/top1": 0.9, "val/top1": 0.8}
    summary = {**dict.fromkeys(facts, 1), "metrics": metrics, "versions": {"torch": "2"}}
    run = SimpleNamespace(summary=summary, data="d", directory=Path("r"))
    book = SimpleNamespace(sheet=SimpleNamespace(root=Path()))
    driver.keep(book, SimpleNamespace(id="a", paper="p"), "recipe", run, {"test/top1": 0.7})
    assert [float(stored[0][name]) for name in ("test_error", "train_error", "val_error")] == [30, 10, 20]


def test_networks_of_other_images_recipes_and_precisions_do_not_count():
    ledger = Ledger(read_sheet())
    arm = next(iter(ledger.sheet.arms.values()))
    ledger._recipes[arm.id] = "now"
    now = {"arm": arm.id, "data": "CIFAR10 a", "recipe": "now", "precision": "bf16-mixed"}
    rows = [now, now, now | {"data": "CIFAR10 b"}, now | {"recipe": "before"}, now | {"precision": "32-true"}]
    ledger.rows[TRAININGS] = [row | {"seed": str(seed)} for seed, row in enumerate(rows)]
    assert [row["seed"] for row in ledger.trainings(arm)] == ["0", "1"]
