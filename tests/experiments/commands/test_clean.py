"""``fathom clean`` leaves what evaluation and a longer training need."""

import shutil

import pytest

from lit_models.checkpoints import read_checkpoint


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny" / tiny_run.name)


def test_a_clean_run_is_evaluated_and_trained_for_longer(run, fathom):
    checkpoints = run / "checkpoints"
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "previous.ckpt")
    before = (checkpoints / "best.ckpt").stat().st_size
    assert fathom("clean", run) == (0, "")
    assert (checkpoints / "best.ckpt").stat().st_size < before
    assert "optimizer_states" not in read_checkpoint(checkpoints / "best.ckpt")
    assert {path.name for path in checkpoints.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert fathom("test", "--ckpt_path", run) == (0, "")
    assert fathom("resume", run, "--trainer.max_epochs", "2") == (0, "")
    assert "optimizer_states" in read_checkpoint(checkpoints / "last.ckpt")


def test_the_last_checkpoint_goes_on_demand(run, fathom):
    assert fathom("clean", run, "--last", "true") == (0, "")
    assert {path.name for path in (run / "checkpoints").glob("*.ckpt")} == {"best.ckpt"}


def test_an_unfinished_run_stays_as_it_is(run, fathom):
    (run / "summary.json").write_text('{"status": "interrupted"}')
    sizes = {path: path.stat().st_size for path in run.rglob("*.ckpt")}
    code, said = fathom("clean", run)
    assert code == 1
    assert "is no finished run" in said
    assert {path: path.stat().st_size for path in run.rglob("*.ckpt")} == sizes
