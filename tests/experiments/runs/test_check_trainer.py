"""What Lightning's Trainer takes and a run can't do is refused before it begins."""

import lightning as L
import pytest

from experiments import internals


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
