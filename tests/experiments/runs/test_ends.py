"""What a run was begun from, and what ended its training, hold over all its processes."""

import json
import shutil

import pytest
import torch
from drill import SMALL, TIMES, differences, finished_run, rows, run_directory

from callbacks import RunSummary

EARLY_STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
EARLY_STOPPING += ["--trainer.callbacks.stopping_threshold", "100"]


def last(folder):
    return torch.load(run_directory(folder) / "checkpoints" / "last.ckpt", weights_only=True)


def summary(folder):
    return json.loads((finished_run(folder) / "summary.json").read_text())


@pytest.fixture
def killed_after_training(fit, die, monkeypatch):
    """Fits, and dies in what follows the training. The last checkpoint it leaves is that of the end."""

    def run(folder, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(RunSummary, "on_fit_end", die)
            assert fit(folder, *args, **options)[0] == -9
        checkpoint = last(folder)
        assert checkpoint["run"]["moment"] == "end"
        return checkpoint

    return run


def test_a_run_killed_before_its_first_checkpoint_begins_from_the_one_it_was_begun_from(whole, fit, tmp_path):
    begun_from = shutil.copy(whole / "checkpoints" / "previous.ckpt", tmp_path / "begun_from.ckpt")
    flags = [*SMALL, "--ckpt_path", str(begun_from)]
    assert fit(tmp_path / "whole", flags=flags)[0] == 0
    assert fit(tmp_path / "broken", flags=flags, at=1)[0] == -9
    begun_from.rename(tmp_path / "away.ckpt")
    code, said = fit(tmp_path / "broken")
    assert code == 1
    assert f"{begun_from}, from which it was begun, is gone" in said
    (tmp_path / "away.ckpt").rename(begun_from)
    code, said = fit(tmp_path / "broken")
    assert code == 0
    assert f"starts over from {begun_from}" in said
    found = list(differences(finished_run(tmp_path / "whole"), finished_run(tmp_path / "broken")))
    assert not found, found[:10]


def test_the_end_is_done_again_however_often(whole, killed_after_training, fit, tmp_path):
    for _ in range(3):
        killed_after_training(tmp_path)
    assert fit(tmp_path)[0] == 0
    found = list(differences(whole, finished_run(tmp_path)))
    assert not found, found[:10]


# After a validation in the middle of an optimizer step, and at the end of an epoch.
@pytest.mark.parametrize("interval", [0.5, 1.0])
def test_early_stopping_is_the_end(killed_after_training, fit, tmp_path, interval):
    flags = [*SMALL, "--trainer.max_epochs", "9", *EARLY_STOPPING, "--trainer.val_check_interval", str(interval)]
    assert fit(tmp_path / "whole", flags=flags)[0] == 0
    ended = killed_after_training(tmp_path / "broken", flags=flags)
    assert ended["global_step"] <= 4
    code, said = fit(tmp_path / "broken")
    assert code == 0, said[-700:]
    found = list(differences(finished_run(tmp_path / "whole"), finished_run(tmp_path / "broken")))
    assert not found, found[:10]


@pytest.mark.parametrize("at", [4, pytest.param(6, marks=pytest.mark.slow), 7])
def test_whatever_stopped_the_training_it_ends_there_again(killed_after_training, fit, monkeypatch, tmp_path, at):
    """Here it is gone when the end is done again."""

    def stop(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == at:
            trainer.should_stop = True

    with monkeypatch.context() as patch:
        patch.setattr(RunSummary, "on_train_batch_end", stop)
        ended = killed_after_training(tmp_path)
    assert ended["global_step"] == -(-at // 2)
    killed_after_training(tmp_path)
    assert fit(tmp_path)[0] == 0
    again = last(tmp_path)
    assert again["global_step"] == ended["global_step"]
    unequal = [name for name, value in ended["state_dict"].items() if not torch.equal(value, again["state_dict"][name])]
    assert not unequal


def test_time_that_has_run_out_is_the_end(killed_after_training, fit, event, tmp_path):
    flags = [*SMALL, "--trainer.max_epochs", "1000", "--trainer.max_time", "00:00:00:02"]
    ended = killed_after_training(tmp_path, flags=flags)
    assert 0 < ended["epoch"] < 1000
    before = rows(run_directory(tmp_path))
    assert fit(tmp_path)[0] == 0
    assert event.count <= 2  # of the validation that was the last
    again = last(tmp_path)
    assert again["global_step"] == ended["global_step"]
    unequal = [name for name, value in ended["state_dict"].items() if not torch.equal(value, again["state_dict"][name])]
    assert not unequal
    assert len(rows(run_directory(tmp_path))) == len(before)


def test_the_summary_has_what_was_reported_before(whole, killed_after_training, fit, tmp_path):
    killed_after_training(tmp_path)
    assert fit(tmp_path)[0] == 0
    ours, theirs = json.loads((whole / "summary.json").read_text()), summary(tmp_path)
    assert {"stochastic_depth", "metrics", "data_fingerprint"} <= ours.keys()
    assert {name: ours[name] for name in ours.keys() - TIMES} == {name: theirs[name] for name in theirs.keys() - TIMES}


def test_an_end_without_the_checkpoint_before_it_is_said(killed_after_training, fit, event, tmp_path):
    killed_after_training(tmp_path)
    (run_directory(tmp_path) / "checkpoints" / "previous.ckpt").unlink()
    code, said = fit(tmp_path)
    assert code == 1
    assert "was trained to its end" in said
    assert event.count == 0
