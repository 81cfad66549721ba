import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import Reseeding


def test_a_negative_seed_is_refused_in_a_sentence(tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(default_root_dir=tmp_path, callbacks=[Reseeding(-1)], accelerator="cpu", max_steps=1, **quiet)
    with pytest.raises(MisconfigurationException, match="the seed of a callback is -1; give 0 or more"):
        trainer.fit(BoringModel())
