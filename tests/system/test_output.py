"""Output that nobody reads, or that can't be written; a current folder that is gone."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def started(repository):
    """``fathom`` with arguments, in a process of its own. It is gone when the test ends."""
    processes = []

    def start(*args, **options):
        words = [sys.executable, "-m", "experiments", *map(str, args)]
        environment = os.environ | {"PYTHONPATH": str(repository)}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        processes.append(subprocess.Popen(words, env=environment, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_training_goes_on_without_its_terminal(started, tiny_config, tmp_path):
    """A full disk, and a pipe that is closed after a line, as by ``head``."""
    flags = ("--config", tiny_config, "--trainer.enable_progress_bar", "true", "--trainer.default_root_dir", tmp_path)
    with open("/dev/full", "w") as full:
        on_full_disk = started("fit", *flags, stdout=full)
        into_pipe = started("fit", *flags, stderr=subprocess.STDOUT)
        into_pipe.stdout.readline()
        into_pipe.stdout.close()
        _, said = on_full_disk.communicate(timeout=200)
    assert on_full_disk.returncode == 0, said
    assert "standard output: No space left on device" in said
    assert into_pipe.wait(timeout=200) == 0
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("tiny/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["finished", "finished"]


@pytest.mark.parametrize("args", [("--help",), ("fit", "--help"), ("compare", "--help")])
def test_a_command_whose_output_is_closed_ends_quietly(started, args):
    process = started(*args)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=100) == 0


def test_a_command_whose_output_is_lost_fails(started):
    with open("/dev/full", "w") as full:
        _, said = (process := started("--help", stdout=full)).communicate(timeout=100)
    assert (process.returncode, said) == (1, "fathom: standard output: No space left on device\n")


def test_a_current_folder_that_is_gone_is_named(started, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("PWD", str(gone))
    process = started("recipes", cwd=gone, preexec_fn=gone.rmdir)
    _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (1, f"fathom: the current folder {gone} is gone: change to another one\n")
