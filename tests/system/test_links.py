"""A symbolic link in a run directory leads no write out of it, whatever the name it has."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from experiments.runs.lock import run_lock
from experiments.runs.metrics_csv import MetricsCSV

# Names that Fathom writes, and those of its temporary files that could be foreseen.
NAMES = [
    *(".lock", "metrics.csv", ".metrics.csv", "summary.json", ".summary.json", "config.yaml", ".config.yaml"),
    *("hparams.yaml", "checkpoints/best.ckpt", "checkpoints/.next.ckpt", "checkpoints/.last.ckpt"),
]


@pytest.fixture
def linked(tiny_run, tmp_path):
    """A run directory with a link to a file elsewhere in the place of one of its own, and that file."""

    def link(name):
        run = shutil.copytree(tiny_run, tmp_path / "runs" / "tiny" / "run")
        (run / "summary.json").unlink()
        canary = tmp_path / "elsewhere"
        canary.mkdir()
        canary = canary / "canary"
        if (run / name).exists():  # one of its kind, and yet another than what a run would write
            end = b"" if name.endswith(".ckpt") else b"\n"
            canary.write_bytes((run / name).read_bytes() + end)
        else:
            canary.write_text("precious")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(canary)
        return run, canary

    return link


@pytest.mark.parametrize("name", NAMES)
def test_resume_writes_through_no_link(name, linked, fathom):
    run, canary = linked(name)
    before = canary.read_bytes()
    code, sentence = fathom("resume", run, "--trainer.max_epochs", 3)
    assert canary.read_bytes() == before
    assert sorted(path.name for path in canary.parent.iterdir()) == ["canary"]
    if code:
        assert sentence == f"{run / name}: it is a symbolic link, which no run writes through: remove it"
    else:
        assert json.loads((run / "summary.json").read_text())["status"] == "finished"
        assert not (run / "summary.json").is_symlink()


def test_a_temporary_file_named_after_the_process_is_no_way_out(linked):
    """The command in a process of its own, whose number is known before it begins."""
    run, canary = linked("checkpoints/best.ckpt")
    before = canary.read_bytes()
    code = (
        "import os, sys, pathlib\n"
        "run = pathlib.Path(sys.argv[1])\n"
        "for name in ('.next.ckpt', 'last.ckpt', 'best.ckpt'):\n"
        "    (run / 'checkpoints' / f'.{name}.{os.getpid()}').symlink_to(sys.argv[2])\n"
        "    (run / 'checkpoints' / f'..{name}.{os.getpid()}').symlink_to(sys.argv[2])\n"
        "words = ['-m', 'experiments', 'resume', str(run), '--trainer.max_epochs', '2']\n"
        "os.execv(sys.executable, [sys.executable, *words])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(run), str(canary)], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in result.stderr
    assert canary.read_bytes() == before


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_new_run_writes_into_none(command, tiny_config, tiny_run, fathom, tmp_path, monkeypatch):
    """A directory that is foreseen, with a link in the place of every file."""
    run = tmp_path / "runs" / "tiny" / "run"
    (run / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr("experiments.cli.command_line.new_run_directory", lambda *_: run)
    names = [name for name in NAMES if name not in (".lock", "metrics.csv")]  # which are refused before the others
    for number, name in enumerate(names):
        (tmp_path / f"canary{number}").write_text("precious: 1")
        (run / name).symlink_to(tmp_path / f"canary{number}")
    checkpoint = () if command == "fit" else ("--ckpt_path", tiny_run / "checkpoints" / "last.ckpt")
    fathom(command, "--config", tiny_config, *checkpoint, "--trainer.default_root_dir", tmp_path / "runs")
    assert {(tmp_path / f"canary{number}").read_text() for number in range(len(names))} == {"precious: 1"}


def locked(folder):
    run_lock(folder).__enter__()


def logged(folder):
    logger = MetricsCSV(folder)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.save()


@pytest.mark.parametrize(("name", "write"), [(".lock", locked), ("metrics.csv", logged)])
def test_the_lock_and_the_metrics_name_the_link(name, write, tmp_path):
    (tmp_path / "canary").write_text("loss,step\n1,0\n")
    (tmp_path / name).symlink_to(tmp_path / "canary")
    with pytest.raises(OSError, match="symbolic link") as error:
        write(tmp_path)
    assert error.value.filename == os.fspath(tmp_path / name)
    assert (tmp_path / "canary").read_text() == "loss,step\n1,0\n"
