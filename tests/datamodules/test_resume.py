"""A run that is stopped and resumed sees what one sees that never stopped, through the real Trainer."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from datamodules import Digits, Photos

EPOCHS, BATCHES = 3, 11
STATISTICS = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


class Recorder(LightningModule):
    """Trains a little, and remembers what it was given."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.LazyLinear(classes))
        self.net(torch.zeros(1, channels, 8, 8))
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def training_step(self, batch, batch_idx):
        images, targets = batch
        self.seen.append((self.trainer.current_epoch, images.clone(), targets.clone()))
        return cross_entropy(self.net(images), targets)

    def validation_step(self, batch, batch_idx):
        self.log("loss", cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def _digits(**options) -> Digits:
    return Digits(batch_size=118, mixup_alpha=0.4, cutmix_alpha=1.0, mix_prob=0.5, erasing=0.5, seed=5, **options)


def _fit(data, folder, max_epochs=EPOCHS, ckpt_path=None, **options):
    torch.manual_seed(0)
    model = Recorder(data.in_channels, data.num_classes)
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return model


def _every_batch(folder) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


def _same(ours, theirs) -> None:
    assert len(ours) == len(theirs) > 0
    for (epoch, images, targets), (other_epoch, other_images, other_targets) in zip(ours, theirs, strict=True):
        assert epoch == other_epoch
        assert torch.equal(images, other_images)
        assert torch.equal(targets, other_targets)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that never stopped, with a checkpoint after each batch."""
    folder = tmp_path_factory.mktemp("unbroken")
    return _fit(_digits(), folder, callbacks=[_every_batch(folder)]), folder


def test_a_run_has_what_the_comparisons_below_need(unbroken):
    model, folder = unbroken
    assert len(model.seen) == EPOCHS * BATCHES == len(list(folder.glob("*.ckpt")))
    assert {targets.ndim for _, _, targets in model.seen} == {1, 2}
    assert not torch.equal(model.seen[0][1], model.seen[BATCHES][1])


@pytest.mark.parametrize("step", np.random.default_rng(0).choice(np.arange(1, 33), 20, replace=False).tolist())
def test_a_run_resumed_at_any_batch_sees_the_rest_bit_for_bit(unbroken, tmp_path, step):
    model, folder = unbroken
    checkpoint = folder / f"step={step}.ckpt"
    state = torch.load(checkpoint, weights_only=True)["Digits"]
    assert (state["epoch"], state["offset"]) == ((step - 1) // BATCHES, (step - 1) % BATCHES + 1)
    resumed = _fit(_digits(), tmp_path, ckpt_path=checkpoint, enable_checkpointing=False)
    _same(resumed.seen, model.seen[step:])
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))


def test_resuming_from_the_end_of_an_epoch_starts_the_next(unbroken, tmp_path):
    at_end = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
    _fit(_digits(), tmp_path, max_epochs=1, callbacks=[at_end])
    state = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["Digits"]
    assert (state["epoch"], state["offset"], state["images"]) == (1, 0, 0)
    resumed = _fit(_digits(), tmp_path, ckpt_path=tmp_path / "epoch=0.ckpt", enable_checkpointing=False)
    _same(resumed.seen, unbroken[0].seen[BATCHES:])


def test_resuming_from_a_validation_in_mid_epoch(unbroken, tmp_path):
    in_validation = ModelCheckpoint(tmp_path, "{step}", monitor="loss", save_top_k=-1)
    _fit(_digits(), tmp_path, max_epochs=2, val_check_interval=4, callbacks=[in_validation])
    resumed = _fit(_digits(), tmp_path, ckpt_path=tmp_path / "step=15.ckpt", val_check_interval=4)
    _same(resumed.seen, unbroken[0].seen[15:])


def test_a_batch_that_was_not_trained_on_is_not_counted(unbroken, tmp_path):
    class Breaks(Recorder):
        def training_step(self, batch, batch_idx):
            if self.global_step == 15:
                raise KeyError("in the middle of a step")
            return super().training_step(batch, batch_idx)

    keep = ModelCheckpoint(tmp_path, "broken", save_on_exception=True, every_n_epochs=10)
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[keep])
    with pytest.raises(KeyError):
        trainer.fit(Breaks(), datamodule=_digits())
    (checkpoint,) = tmp_path.glob("*.ckpt")
    resumed = _fit(_digits(), tmp_path, ckpt_path=checkpoint, enable_checkpointing=False)
    _same(resumed.seen, unbroken[0].seen[15:])


def test_batches_that_workers_made_ahead_are_not_counted(caltech, tmp_path):
    def data() -> Photos:
        return Photos(str(caltech), image_size=16, batch_size=8, train_size=80, num_workers=2, val_fraction=0)

    unbroken = _fit(data(), tmp_path, max_epochs=2, callbacks=[_every_batch(tmp_path)])
    resumed = _fit(data(), tmp_path, max_epochs=2, ckpt_path=tmp_path / "step=13.ckpt", enable_checkpointing=False)
    _same(resumed.seen, unbroken.seen[13:])


def test_a_limited_epoch_moves_on_to_the_next_epochs_order(unbroken, tmp_path):
    limited = _fit(_digits(), tmp_path, limit_train_batches=4, enable_checkpointing=False)
    _same(limited.seen[4:8], unbroken[0].seen[BATCHES : BATCHES + 4])


def test_overfitting_repeats_the_same_images(tmp_path):
    model = _fit(Digits(shift=0), tmp_path, overfit_batches=2, enable_checkpointing=False)
    _same([(0, *seen[1:]) for seen in model.seen[2:4]], [(0, *seen[1:]) for seen in model.seen[:2]])


def test_mixing_stops_for_the_last_epochs(tmp_path):
    model = _fit(Digits(mixup_alpha=0.4, mix_off_epochs=1), tmp_path, enable_checkpointing=False)
    assert [targets.ndim for _, _, targets in model.seen] == [2] * 22 + [1] * 11


@pytest.mark.parametrize("length", [{"max_epochs": -1}, {"max_steps": 12}])
def test_a_fit_that_may_end_within_an_epoch_has_no_last_epochs_without_mixing(tmp_path, length):
    with pytest.raises(MisconfigurationException, match="and leave trainer"):
        _fit(Digits(mixup_alpha=0.4, mix_off_epochs=1), tmp_path, enable_checkpointing=False, **length)


def _pixels(model) -> list[bytes]:
    return [image.contiguous().numpy().tobytes() for _, images, _ in model.seen for image in images]


@pytest.mark.parametrize("batch_size", [40, 300])
def test_an_epoch_goes_on_with_another_batch_size_at_the_same_image(tmp_path, batch_size):
    def fit(batch_size, **options):
        data = Digits(image_size=8, batch_size=batch_size, shift=0, seed=5)
        return _fit(data, tmp_path, max_epochs=2, **options)

    class Counts(ModelCheckpoint):
        def on_train_epoch_end(self, trainer, pl_module):
            self.batches = trainer.fit_loop.epoch_loop.batch_progress.current.processed

    whole = fit(118, callbacks=[_every_batch(tmp_path)])
    counts = Counts(tmp_path, "resumed")
    resumed = fit(batch_size, ckpt_path=tmp_path / "step=4.ckpt", callbacks=[counts])
    done = sum(len(images) for _, images, _ in whole.seen[:4])
    assert _pixels(resumed) == _pixels(whole)[done:]
    assert max(len(images) for _, images, _ in resumed.seen) <= batch_size
    assert counts.batches == len([epoch for epoch, *_ in resumed.seen if epoch == 1]) == -(-1294 // batch_size)


@pytest.mark.parametrize(("step", "batch_size"), [(3, 118), (10, 118), (13, 118), (4, 300), (13, 300)])
def test_equal_batches_go_on_at_the_same_image(tmp_path, step, batch_size):
    def fit(batch_size, **options):
        data = Digits(image_size=8, batch_size=batch_size, shift=0, seed=5, equal_batches=True)
        return _fit(data, tmp_path, max_epochs=2, **options)

    whole = fit(118, callbacks=[_every_batch(tmp_path)])
    assert [len(images) for _, images, _ in whole.seen] == [118] * 20
    resumed = fit(batch_size, ckpt_path=tmp_path / f"step={step}.ckpt", enable_checkpointing=False)
    assert {len(images) for _, images, _ in resumed.seen} == {batch_size}
    if batch_size == 118:
        _same(resumed.seen, whole.seen[step:])
    else:
        epoch = (step - 1) // 10
        of_this_epoch = sum(len(images) for number, images, _ in resumed.seen if number == epoch)
        assert of_this_epoch == (1294 - 118 * (step - 10 * epoch)) // 300 * 300
        assert _pixels(resumed)[: 118 * 3] == _pixels(whole)[118 * step :][: 118 * 3]


def test_an_epoch_of_no_equal_batch_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="1294 training images don't fill one batch of 2000 on 1 ranks"):
        _fit(Digits(image_size=8, batch_size=2000, equal_batches=True), tmp_path, max_epochs=1)


def test_a_checkpoint_that_counts_batches_alone_goes_on(unbroken, tmp_path):
    model, folder = unbroken
    checkpoint = torch.load(folder / "step=15.ckpt", weights_only=True)
    state = checkpoint["Digits"]
    checkpoint["Digits"] = {"epoch": state["epoch"], "offset": state["offset"]}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    resumed = _fit(_digits(), tmp_path, ckpt_path=tmp_path / "old.ckpt", enable_checkpointing=False)
    _same(resumed.seen, model.seen[15:])


def test_a_run_does_not_go_on_with_other_images_unless_told_so(folder, tmp_path):
    def data(**options) -> Photos:
        return Photos(str(folder), image_size=8, batch_size=4, num_workers=0, **STATISTICS, **options)

    _fit(data(), tmp_path, max_epochs=1, callbacks=[_every_batch(tmp_path)])
    for name in ("cat", "dog"):
        shutil.copy(folder / "train" / name / "00.jpg", folder / "train" / name / "new.jpg")
    options = {"max_epochs": 2, "ckpt_path": tmp_path / "step=3.ckpt", "enable_checkpointing": False}
    with pytest.raises(MisconfigurationException, match=r"the training images have changed .*allow_changed_data"):
        _fit(data(), tmp_path, **options)
    changed = data(allow_changed_data=True)
    _fit(
        changed, tmp_path, **(options | {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(tmp_path, "on")]})
    )
    report = changed.report()
    assert report["data_fingerprint_before"] != report["data_fingerprint"]
    resumed_again = data()
    _fit(resumed_again, tmp_path, **(options | {"max_epochs": 3, "ckpt_path": tmp_path / "on.ckpt"}))
    assert resumed_again.report() == report
    assert "data_fingerprint_before" not in data().report()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_plain_loop_gets_the_batches_that_fit_gets(folder, tmp_path, num_workers):
    def data() -> Photos:
        mixing = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "mix_prob": 0.5, "erasing": 0.5}
        return Photos(str(folder), image_size=8, batch_size=4, num_workers=num_workers, seed=5, **STATISTICS, **mixing)

    fitted = _fit(data(), tmp_path, max_epochs=2, enable_checkpointing=False)
    plain = data()
    seen = [(epoch, *batch) for epoch in range(2) for batch in plain.batches("train", epoch, device="cpu")]
    _same(seen, fitted.seen)
    assert {targets.ndim for _, _, targets in seen} == {1, 2}
    for part, loader in (("val", plain.val_dataloader()), ("test", plain.test_dataloader())):
        expected = [plain.on_after_batch_transfer(batch, 0) for batch in loader]
        _same([(0, *batch) for batch in plain.batches(part)], [(0, *batch) for batch in expected])
