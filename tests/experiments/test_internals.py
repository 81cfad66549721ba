"""What the fence of private names promises the experiments holds for the releases that are installed."""

import lightning as L
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from datamodules import Digits
from experiments import internals


def test_loops_take_their_batches_from_attached_data(seen_with):
    class Module(L.LightningModule):
        def training_step(self, batch, batch_idx): ...

    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(Module())
    data = Digits(batch_size=100, train_size=500)
    with seen_with(internals, "lightning"):
        internals.attach_data(trainer, trainer.lightning_module, data)
        trainer.training = True
        assert data.trainer is trainer
        assert trainer.estimated_stepping_batches == 2 * 5


def test_what_is_overridden_is_there(tmp_path, seen_with):
    bases = {
        "FathomCLI": LightningCLI,
        "_Writer": ExperimentWriter(str(tmp_path / "logs")),
        "DispensableWandbLogger": WandbLogger(save_dir=tmp_path, offline=True),
    }
    assert bases.keys() == internals.OVERRIDDEN.keys()
    with seen_with(internals, "lightning"):
        for name, base in bases.items():
            missing = {overridden for overridden in internals.OVERRIDDEN[name] if not hasattr(base, overridden)}
            assert not missing, f"the base of {name} has no {missing}"
