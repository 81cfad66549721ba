"""What Lightning's Trainer takes and a run can't do is refused before it begins."""

from fnmatch import fnmatchcase

import lightning as L
import pytest
from drill import rows
from lightning.pytorch.callbacks import EarlyStopping

from callbacks import ActivationAnnealing, BestCheckpoint, GradientStatistics, StochasticDepth, WeightAveraging
from experiments import internals
from experiments.errors import UsageError
from experiments.runs.check_trainer import check_monitors
from lit_models import CIFARResNet, ImageClassifier


@pytest.mark.parametrize(
    ("callback", "instead"),
    [
        ("Timer", "set trainer.max_time"),
        ("GradientAccumulationScheduler", "set trainer.accumulate_grad_batches"),
        ("LearningRateFinder", "compare short runs with several values of model.lr"),
        ("BatchSizeFinder", "compare short runs with several values of data.batch_size"),
    ],
)
def test_a_callback_with_which_no_run_resumes(callback, instead, tiny_config, fathom, tmp_path):
    flags = ["--trainer.default_root_dir", tmp_path, f"--trainer.callbacks+=lightning.pytorch.callbacks.{callback}"]
    if callback == "GradientAccumulationScheduler":
        flags += ["--trainer.callbacks.scheduling", "{0: 2}"]
    sentence = f"no run can be resumed with the callback {callback}: {instead}"
    assert fathom("fit", "--config", tiny_config, *flags) == (1, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "ddp_notebook"])
def test_a_strategy_that_copies_the_process(strategy, tiny_config, fathom, tmp_path):
    flags = ("--trainer.strategy", strategy, "--trainer.devices", 2, "--trainer.accelerator", "cpu")
    code, sentence = fathom("fit", "--config", tiny_config, *flags, "--trainer.default_root_dir", tmp_path)
    assert code == 1
    assert sentence.endswith("set trainer.strategy to ddp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("strategy", "copies"), [("ddp", False), ("ddp_spawn", True), ("ddp_fork", True)])
def test_strategies_that_copy_the_process_are_known(strategy, copies, seen_with):
    with seen_with(internals, "lightning"):
        trainer = L.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
        assert internals.starts_from_this_process(trainer) is copies


def task():
    return ImageClassifier(CIFARResNet(8, 10, width=4), 10)


def test_all_that_is_logged_can_be_monitored_and_nothing_else(whole):
    """This run has every callback that logs."""
    callbacks = [WeightAveraging(), ActivationAnnealing(), GradientStatistics(), StochasticDepth(0.5)]
    names = {name for row in rows(whole) for name in row} - {"step", "epoch", "samples_seen"}
    assert len(names) > 10
    for name in names:
        check_monitors(task(), [EarlyStopping(name), BestCheckpoint(monitor=name), *callbacks])
    for pattern in {pattern for part in (task(), *callbacks) for pattern in part.logs}:
        assert any(fnmatchcase(name, pattern) for name in names), pattern
    with pytest.raises(
        UsageError, match=r"'activation_lambda', which this run does not log; it logs gradient_mean_abs/\*, "
    ):
        check_monitors(task(), [EarlyStopping("activation_lambda"), GradientStatistics()])


def test_of_a_stranger_nobody_knows_what_it_logs():
    class Mine(L.Callback):
        pass

    class MyTask(ImageClassifier):
        pass

    watching = EarlyStopping("mine")
    check_monitors(task(), [watching, Mine()])
    check_monitors(MyTask(CIFARResNet(8, 10, width=4), 10), [watching])
    check_monitors(task(), [EarlyStopping("mine", strict=False), BestCheckpoint(monitor="step")])
