"""Where a run and the evaluations of its checkpoints lie, and what they are called."""

import shutil

import pytest
import yaml

from experiments.runs.directory import checked_name, experiment_name
from experiments.unravel.source import open_subject
from lit_models.checkpoints import checkpoint_file


@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "elsewhere" / "tiny" / "copy")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_lies_within_the_run(command, copy, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in copy.iterdir()}
    assert fathom(command, "--ckpt_path", copy / "checkpoints" / "best.ckpt") == (0, "")
    (evaluation,) = (copy / command).iterdir()
    assert {path.name for path in evaluation.iterdir()} >= {"config.yaml", "summary.json"}
    assert {path.name for path in copy.iterdir()} == before | {command}
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]  # and so there is one run to compare
    assert not (tmp_path / "runs").exists()


def test_several_evaluations_do_not_come_in_the_way_of_a_comparison(copy, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert fathom("test", "--ckpt_path", copy) == (0, "")
    assert len(list((copy / "test").iterdir())) == 2
    assert fathom("compare", copy.parent, "--metric", "val/top1") == (0, "")


def test_the_user_may_put_it_elsewhere(copy, fathom, tmp_path):
    root = tmp_path / "evaluations"
    assert fathom("test", "--ckpt_path", copy, "--trainer.default_root_dir", root) == (0, "")
    assert len(list(root.glob("tiny/*"))) == 1
    assert not (copy / "test").exists()


def test_a_checkpoint_outside_a_run_is_evaluated_in_a_run_of_its_own(tiny_config, copy, fathom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = shutil.copy(copy / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    assert fathom("test", "--config", tiny_config, "--ckpt_path", checkpoint) == (0, "")
    assert len(list((tmp_path / "runs").glob("tiny/*"))) == 1


def test_a_run_directory_stands_for_its_best_checkpoint(copy, fathom, tmp_path):
    best, last = (copy / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert checkpoint_file(copy) == best
    best.unlink()
    assert checkpoint_file(copy) == last
    assert fathom("test", "--ckpt_path", copy) == (0, "")
    (config,) = copy.glob("test/*/config.yaml")
    assert yaml.safe_load(config.read_text())["ckpt_path"] == str(last)
    last.unlink()
    expected = f"{copy} is no run directory: it has no checkpoints/best.ckpt or checkpoints/last.ckpt"
    assert fathom("test", "--ckpt_path", copy) == (1, expected)


def test_a_run_has_the_name_it_is_given(tiny_config, fathom, tmp_path):
    root = ("--trainer.default_root_dir", tmp_path)
    assert fathom("fit", "--config", tiny_config, "--name", "좁은 net", *root) == (0, "")
    (run_directory,) = tmp_path.glob("*/*")
    assert run_directory.parent.name == "좁은 net"
    moved = run_directory.rename(tmp_path / "moved")
    assert yaml.safe_load((moved / "config.yaml").read_text())["name"] == "좁은 net"
    assert experiment_name([moved / "config.yaml"]) == "좁은 net"
    assert open_subject(str(moved)).name == "좁은 net"
    # its configuration makes another run of that name, and its evaluations say whose they are
    assert fathom("fit", "--config", moved / "config.yaml", *root) == (0, "")
    assert len(list(tmp_path.glob("좁은 net/*"))) == 1
    assert fathom("test", "--ckpt_path", moved) == (0, "")
    assert experiment_name(list(moved.glob("test/*/config.yaml"))) == "좁은 net"


def test_a_name_is_that_of_a_folder():
    from experiments.errors import UsageError

    assert checked_name("resnet 20, narrow") == "resnet 20, narrow"
    for name in ("", " ", ".", "..", ".hidden", "a/b", "/a", "a\nb", "a\0"):
        with pytest.raises(UsageError, match="has to be the name of a folder"):
            checked_name(name)
