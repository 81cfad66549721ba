"""A diverged run ends at the right step, with the right batch, and saves nothing after it."""

import math

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, Dataset

from callbacks import NonFiniteError, StopOnNonFinite
from lit_models import ImageClassifier

BATCH = 2


class Images(Dataset):
    """The value of an image is its index; that of ``bad``, something else."""

    def __init__(self, bad=None, value=math.nan, count=24):
        self.bad, self.value, self.count = bad, value, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((1, 2, 2), self.value if index == self.bad else float(index)), torch.tensor(index % 2)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, images):
        return self.layer(images.flatten(1) / 100)


class RootOfTheLoss(ImageClassifier):
    """The square root of 0 has an infinite gradient."""

    def loss(self, logits, targets):
        loss = super().loss(logits, targets)
        return loss.detach() + (loss * 0).sqrt() if self.global_step == 5 else loss


def fit(path, data, module=None, guard=None, callbacks=(), **trainer):
    torch.manual_seed(0)
    module = module or ImageClassifier(Linear(), 2, schedule="constant", lr=0.01)
    trainer = L.Trainer(
        default_root_dir=path,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        callbacks=[guard or StopOnNonFinite(), *callbacks],
        **{"max_epochs": 2, "enable_progress_bar": False, **trainer},
    )
    trainer.fit(module, DataLoader(data, BATCH))
    return trainer


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_offending_batch_is_saved(tmp_path, value):
    with pytest.raises(NonFiniteError, match=r"loss of step 7 is nan .*learning rate of 0\.01.*nonfinite\.pt") as error:
        fit(tmp_path, Images(bad=15, value=value))
    assert "\n" not in str(error.value)
    saved = torch.load(tmp_path / "nonfinite.pt", weights_only=True)
    images, targets = saved["batch"]
    assert images[0].unique().tolist() == [14.0]
    assert not images[1].isfinite().any()
    assert targets.tolist() == [0, 1]
    assert (saved["step"], saved["epoch"], saved["batch_idx"], saved["lr"]) == (7, 0, 7, 0.01)
    assert 0 < saved["last_finite_loss"] < 2
    assert f"{saved['last_finite_loss']:.4g} was the last finite one" in str(error.value)


def test_an_infinite_gradient_counts_where_the_loss_is_finite(tmp_path):
    with pytest.raises(NonFiniteError, match=r"gradient of step 5 has a norm of (nan|inf), though its loss is"):
        fit(tmp_path, Images(), RootOfTheLoss(Linear(), 2, schedule="constant"))
    assert torch.load(tmp_path / "nonfinite.pt", weights_only=True)["batch"][0][0].unique().tolist() == [10.0]


def test_a_batch_within_an_accumulation_is_the_right_one_and_its_losses_whole(tmp_path):
    with pytest.raises(NonFiniteError, match="loss of step 2 is nan"):
        fit(tmp_path / "four", Images(bad=19), accumulate_grad_batches=4)
    saved = torch.load(tmp_path / "four" / "nonfinite.pt", weights_only=True)
    assert (saved["batch_idx"], saved["step"]) == (9, 2)
    losses = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        module = ImageClassifier(Linear(), 2, schedule="constant", lr=1e-12)  # the weights stay, and so do the losses
        with pytest.raises(NonFiniteError):
            fit(tmp_path / str(accumulate), Images(bad=19), module, accumulate_grad_batches=accumulate)
        losses.append(torch.load(tmp_path / str(accumulate) / "nonfinite.pt", weights_only=True)["last_finite_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_bar_shows_the_whole_loss_under_a_name_of_its_own(tmp_path):
    """Loggers get that of the main head as train/loss."""
    metrics = fit(tmp_path, Images(), max_steps=2, enable_progress_bar=True).progress_bar_metrics
    assert metrics["loss"] > 0
    assert "train/loss" not in metrics


class Late(StopOnNonFinite):
    """As on a GPU: what a step says arrives three steps later."""

    looks = 0

    def _check_arrived(self, trainer, wait=False):
        self.looks += 1
        for i, step in enumerate(self._in_flight):
            if step.arrived is None:
                self._in_flight[i] = step._replace(arrived=Arrival(self))
        super()._check_arrived(trainer, wait)


class Arrival:
    def __init__(self, guard):
        self.guard, self.look = guard, guard.looks + 3

    def query(self):
        return self.guard.looks >= self.look

    def synchronize(self):
        self.look = 0


@pytest.mark.parametrize("guard", [StopOnNonFinite, Late])
def test_nothing_that_follows_is_saved(tmp_path, guard):
    """A checkpoint in each step, also on the exception: the last is from before the step."""
    every_step = ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_on_exception=True
    )
    with pytest.raises(NonFiniteError):
        fit(tmp_path, Images(bad=15), guard=guard(), callbacks=[every_step])
    steps = sorted(int(path.stem.removeprefix("step=")) for path in tmp_path.glob("*.ckpt"))
    assert steps == list(range(1, 8))
    last = torch.load(tmp_path / "step=7.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in last.values())


def test_a_device_that_lags_behind_changes_nothing_but_the_moment(tmp_path):
    late = Late()
    with pytest.raises(NonFiniteError, match="loss of step 7 is nan"):
        fit(tmp_path, Images(bad=15), guard=late)
    images, _ = torch.load(tmp_path / "nonfinite.pt", weights_only=True)["batch"]
    assert images[0].unique().tolist() == [14.0]
    assert late.looks == 8 + 3  # not before it had arrived


def test_the_last_step_of_a_fit_is_looked_at(tmp_path):
    late = Late()
    with pytest.raises(NonFiniteError, match="loss of step 11 is nan"):
        fit(tmp_path, Images(bad=23), guard=late, max_epochs=1, enable_checkpointing=False)


def test_overflow_is_the_business_of_a_gradient_scaler(tmp_path):
    """The scaler starts so high that the first steps overflow; the fit goes on, and a NaN loss still ends it."""

    def half():
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**40))

    trainer = fit(tmp_path, Images(), plugins=[half()], precision=None, max_epochs=3)
    assert trainer.precision_plugin.scaler.get_scale() < 2.0**40
    assert not (tmp_path / "nonfinite.pt").exists()
    with pytest.raises(NonFiniteError, match="loss of step 7 is nan"):
        fit(tmp_path, Images(bad=15), plugins=[half()], precision=None)
    assert torch.load(tmp_path / "nonfinite.pt", weights_only=True)["gradient_norm"] is None


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.net.layer.bias.data[0] = math.inf

    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    with pytest.raises(NonFiniteError, match="weights after 1 steps are not finite"):
        fit(tmp_path, Images(), callbacks=[Spoil(), checkpoint])
    assert list(tmp_path.glob("*.ckpt")) == []
