"""Lightning's tuner, in Python: what it finds is what a fit then does."""

import lightning as L
import pytest
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner import Tuner

from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier


@pytest.fixture
def parts(tmp_path):
    def make(*callbacks):
        module = ImageClassifier(CIFARResNet(8, width=4, in_channels=1), 10, lr=0.123)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        limits = {"max_steps": 2, "limit_train_batches": 4, "limit_val_batches": 0, "default_root_dir": tmp_path}
        trainer = L.Trainer(callbacks=list(callbacks), enable_checkpointing=False, **quiet, **limits)
        return trainer, module, Digits(image_size=8, batch_size=16)

    return make


def peak(trainer):
    """The learning rate that the schedule of a fit goes down from."""
    return trainer.lr_scheduler_configs[0].scheduler.base_lrs[0]


def test_a_fit_has_the_rate_that_was_found_before_it(parts):
    trainer, module, data = parts()
    found = Tuner(trainer).lr_find(module, datamodule=data, num_training=20, early_stop_threshold=None).suggestion()
    assert module.lr == found != 0.123
    trainer.fit(module, data)
    assert peak(trainer) == found


def test_a_fit_has_the_rate_that_its_callback_finds(parts):
    trainer, module, data = parts(LearningRateFinder(num_training_steps=20, early_stop_threshold=None))
    trainer.fit(module, data)
    assert peak(trainer) == module.lr != 0.123


def test_a_fit_has_the_batch_size_that_was_found_before_it(parts):
    trainer, module, data = parts()
    found = Tuner(trainer).scale_batch_size(module, datamodule=data, max_trials=2, steps_per_trial=1)
    assert found == data.batch_size != 16
    trainer.fit(module, data)
    assert len(next(iter(data.train_dataloader()))[0]) == found
