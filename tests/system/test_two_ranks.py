"""Two ranks that Lightning starts: they write into one run directory, and evaluate one network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TWO = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")
AVERAGED = ("--trainer.callbacks+=WeightAveraging", "--trainer.callbacks.decay", "0.5")


@pytest.fixture
def fit(repository, tiny_config, tmp_path):
    """Runs a fit on two ranks to its end, with nothing left of it: exit code, what it said, and its run directories."""

    def run(*flags, **environment):
        worker = [sys.executable, str(Path(__file__).with_name("ranks_worker.py")), "fit", "--config", str(tiny_config)]
        words = [*worker, *TWO, *AVERAGED, "--trainer.default_root_dir", str(tmp_path), *flags]
        path = os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            words,
            env=os.environ | {"PYTHONPATH": path} | environment,
            start_new_session=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            _, said = process.communicate(timeout=200)  # until the last process has closed it
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        return process.returncode, said, list(tmp_path.glob("*/*"))

    return run


def test_they_evaluate_one_network_in_one_run(fit):
    code, said, runs = fit("--trainer.max_epochs", "2")
    assert code == 0, said
    (run_directory,) = runs
    first, second = (torch.load(run_directory / f"evaluated{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first) == len(second) == 4
    for ours, theirs in zip(first, second, strict=True):
        assert any("running_mean" in name for name in ours)
        assert [name for name, buffer in ours.items() if not torch.equal(buffer, theirs[name])] == []


def test_the_error_of_the_second_is_in_the_summary(fit):
    code, said, runs = fit(FAIL="1")
    assert code != 0
    assert "fathom: rank 1 can't read its images" in said
    assert "Traceback" not in said
    (run_directory,) = runs
    summary = json.loads((run_directory / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"] == "rank 1: OSError: rank 1 can't read its images"


def test_what_was_not_finite_lies_in_the_one_run(fit):
    code, said, runs = fit(NAN="1")
    assert code != 0
    assert "the loss of step 0 is nan" in said or "the gradient of step 0" in said
    (run_directory,) = runs
    assert (run_directory / "nonfinite-rank1.pt").is_file()
    assert json.loads((run_directory / "summary.json").read_text())["status"] == "failed"
