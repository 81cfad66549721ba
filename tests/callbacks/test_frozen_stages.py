"""Frozen stages in real fits."""

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import FrozenStages
from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def test_they_stay_frozen_where_a_fit_is_resumed_within_an_epoch(tmp_path):
    """Of four batches, with a validation after the second."""

    def state(directory, ckpt_path=None):
        torch.manual_seed(0)
        net = CIFARResNet(8, num_classes=10, in_channels=1, width=4)
        saving = ModelCheckpoint(directory, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = L.Trainer(
            max_epochs=1,
            val_check_interval=2,
            default_root_dir=directory,
            callbacks=[FrozenStages(1), saving],
            num_sanity_val_steps=0,
            **QUIET,
        )
        data = Digits(image_size=8, batch_size=8, train_size=32, val_fraction=0.02)
        trainer.fit(ImageClassifier(net, 10, lr=0.1), data, ckpt_path=ckpt_path, weights_only=True)
        return torch.load(directory / "step=4.ckpt", weights_only=True)["state_dict"]

    whole = state(tmp_path / "whole")
    resumed = state(tmp_path / "resumed", tmp_path / "whole" / "step=1.ckpt")
    assert whole["net.bn1.num_batches_tracked"] == 0
    assert whole["net.layer2.0.bn1.num_batches_tracked"] == 4
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
