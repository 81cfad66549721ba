import random
from itertools import product
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import Reseeding


def test_a_negative_seed_is_refused_in_a_sentence(tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(default_root_dir=tmp_path, callbacks=[Reseeding(-1)], accelerator="cpu", max_steps=1, **quiet)
    with pytest.raises(MisconfigurationException, match="the seed of a callback is -1; give 0 or more"):
        trainer.fit(BoringModel())


def test_each_seed_epoch_batch_and_rank_has_draws_of_its_own():
    def drawn(seed, epoch, batch, rank):
        trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        Reseeding(seed).on_train_batch_start(trainer, SimpleNamespace(device=torch.device("cpu")), None, batch)
        return torch.rand(()).item(), np.random.rand(), random.random()

    positions = list(product(range(2), repeat=4))
    found = [drawn(*position) for position in positions]
    assert found == [drawn(*position) for position in positions]
    assert all(len(set(column)) == 16 for column in zip(*found, strict=True))
