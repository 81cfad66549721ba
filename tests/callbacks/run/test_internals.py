"""What the fence of private names promises the callbacks holds for the releases that are installed."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from callbacks.run import internals


class Module(L.LightningModule):
    """Logs the number of the batch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.log("number", float(batch_idx), on_epoch=True)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Watch(L.Callback):
    """Calls a function in a batch."""

    def __init__(self, act):
        self.on_train_batch_end = act


@pytest.fixture
def fit(tmp_path):
    """Trains four batches, two in a step; ``act`` is called with the trainer after each."""

    def run(act):
        trainer = L.Trainer(
            max_epochs=1,
            accumulate_grad_batches=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[Watch(lambda trainer, module, outputs, batch, batch_idx: act(trainer, batch_idx))],
        )
        trainer.fit(Module(), DataLoader(torch.ones(4, 1)))
        return trainer

    return run


def test_logged_results_hold_their_sums(fit, seen_with):
    entries = []

    def act(trainer, batch_idx):
        ((name, entry),) = internals.logged_results(trainer).items()
        entries.append((name, *(float(getattr(entry, attribute)) for attribute in internals.SUMS)))

    with seen_with(internals, "lightning"):
        fit(act)
        assert entries == [("training_step.number", sum(range(n)), n, n - 1) for n in (1, 2, 3, 4)]


def test_logging_goes_on_as_if_the_epoch_had_begun_before(fit, seen_with):
    def act(trainer, batch_idx):
        if batch_idx == 1:
            trainer._logger_connector._first_loop_iter = True  # as after a resume in the middle of an epoch
            internals.go_on_logging(trainer, {"before": torch.tensor(7.0)})

    with seen_with(internals, "lightning"):
        metrics = fit(act).callback_metrics
        assert metrics["number_epoch"] == 1.5
        assert metrics["before"] == 7


def test_accumulation_and_the_step_for_loggers(fit, seen_with):
    accumulating, steps = [], []

    def act(trainer, batch_idx):
        accumulating.append(internals.is_accumulating(trainer))
        trainer.fit_loop.epoch_loop._batches_that_stepped = 99
        internals.count_steps_for_loggers(trainer)
        steps.append(trainer._logger_connector.trainer.fit_loop.epoch_loop._batches_that_stepped)

    with seen_with(internals, "lightning"):
        fit(act)
        assert accumulating == [True, False, True, False]
        assert steps == [0, 1, 1, 2]


def test_a_run_gets_another_directory(fit, seen_with, tmp_path):
    with seen_with(internals, "lightning"):
        trainer = fit(lambda trainer, _: internals.set_run_directory(trainer, str(tmp_path / "other")))
        assert trainer.default_root_dir == str(tmp_path / "other")


def test_a_metric_takes_a_count_and_computes_anew(seen_with):
    with seen_with(internals, "torchmetrics"):
        metric = MeanMetric()
        metric.update(1.0)
        assert metric.compute() == 1
        metric.mean_value = torch.tensor(6.0)
        internals.set_update_count(metric, 5)
        assert metric.update_count == 5
        assert metric.compute() == 6


def test_weight_averaging_overrides_what_is_there(seen_with):
    with seen_with(internals, "lightning"):
        callback = EMAWeightAveraging()
        assert all(hasattr(callback, name) for name in internals.OVERRIDDEN["WeightAveraging"])


def test_the_norms_of_some_tensors(seen_with):
    with seen_with(internals, "torch"):
        tensors = [torch.tensor([3.0, 4.0]), torch.eye(4)]
        assert internals.norms(tensors).tolist() == [5.0, 2.0]


def test_some_tensors_move_towards_others(seen_with):
    with seen_with(internals, "torch"):
        tensors = [torch.zeros(2), torch.ones(1)]
        internals.move_towards(tensors, [torch.full((2,), 4.0), torch.zeros(1)], torch.tensor(0.25))
        assert [tensor.tolist() for tensor in tensors] == [[1.0, 1.0], [0.75]]


def test_lightning_does_not_ask_for_signals(fit, seen_with):
    with seen_with(internals, "lightning"):
        trainer = fit(lambda trainer, _: None)
        assert callable(trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor)
        internals.leave_signals_alone(trainer)
        assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None
