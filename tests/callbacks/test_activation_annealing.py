"""λ over the epochs and steps of real fits."""

import math

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks import ActivationAnnealing, MergeAtFitEnd
from callbacks.activation_annealing import annealing_epochs, annealing_lambda
from lit_models import ImageClassifier, VanillaNet, load_checkpoint


class RecordLambda(L.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.values.append(pl_module.net.activation_lambda.item())


class StopAt(L.Callback):
    """Interrupts a fit after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step


def test_formulas():
    assert [annealing_lambda(e, 4) for e in (0, 1, 2, 4, 9)] == [0, 0.25, 0.5, 1, 1]
    assert [annealing_lambda(e, 4, "cosine") for e in (0, 2, 4)] == pytest.approx([0, 0.5, 1])
    assert annealing_lambda(1, 4, "cosine") == pytest.approx(0.1464466)


def test_per_epoch_lambda_starts_at_relu_and_ends_at_the_identity(fit, tmp_path):
    record = RecordLambda()
    fit(tmp_path, ActivationAnnealing(epochs=2), record, max_epochs=3)
    assert record.values == [0.0] * 4 + [0.5] * 4 + [1.0] * 4


def test_per_step_lambda_moves_with_every_optimizer_step(fit, tmp_path):
    record = RecordLambda()
    fit(tmp_path, ActivationAnnealing(1.5, per="step"), record, max_epochs=2, accumulate_grad_batches=2)
    assert record.values == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])


def test_a_resumed_fit_goes_on_where_it_was(fit, tmp_path):
    record = RecordLambda()
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "middle", every_n_train_steps=6)
    fit(tmp_path, ActivationAnnealing(epochs=2), checkpoint, StopAt(7), max_epochs=3)
    fit(tmp_path, ActivationAnnealing(epochs=2), record, max_epochs=3, ckpt_path=tmp_path / "middle.ckpt")
    assert record.values == [0.5] * 2 + [1.0] * 4


def test_a_checkpoint_from_the_middle_gives_the_same_logits_without_a_trainer(fit, tmp_path):
    """λ is part of the checkpoint."""
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "middle", every_n_train_steps=6)
    trained = fit(tmp_path, ActivationAnnealing(epochs=2), checkpoint, StopAt(6), max_epochs=3).eval()
    net = VanillaNet(4, depth=5, width=4, stem_kernel=2, stem_stride=2, series_order=1)
    loaded = load_checkpoint(tmp_path / "middle.ckpt", net=net)
    images = torch.randn(3, 3, 16, 16)
    assert loaded.net.activation_lambda == 0.5
    with torch.no_grad():
        assert torch.equal(loaded(images), trained(images))


def test_a_third_of_the_fit_is_the_default():
    assert [annealing_epochs(None, "epoch", epochs) for epochs in (2, 3, 20, 300)] == [1, 1, 6, 100]
    assert annealing_epochs(None, "step", 20) == pytest.approx(20 / 3)
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        annealing_epochs(None, "epoch", math.inf)
    with pytest.warns(UserWarning, match="one epoch"):
        assert annealing_epochs(None, "epoch", 1) == 1


@pytest.mark.parametrize(("epochs", "per"), [(3, "epoch"), (2.5, "epoch"), (3, "step"), (7, "step")])
def test_annealing_that_would_not_end_is_refused(epochs, per, fit, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"λ = 1.*max_epochs"):
        fit(tmp_path, ActivationAnnealing(epochs, per=per), max_epochs=3)


@pytest.mark.parametrize(("epochs", "per"), [(1, "epoch"), (1.6, "step")])
def test_a_fit_that_its_steps_end_sooner_is_as_short_as_that(epochs, per, fit, tmp_path):
    limits = {"max_epochs": 3, "max_steps": 6}
    with pytest.raises(MisconfigurationException, match=r"λ = 1 in a fit of .*max_steps"):
        fit(tmp_path, ActivationAnnealing(1 + epochs, per=per), **limits)
    record = RecordLambda()
    fit(tmp_path, ActivationAnnealing(per=per), record, **limits)
    assert record.values[-1] == 1


def test_a_fit_of_one_epoch_anneals_by_steps(recwarn):
    assert annealing_epochs(None, "step", 1) == pytest.approx(1 / 3)
    assert not recwarn


def test_a_network_without_annealed_activations_is_refused(fit, tmp_path):
    plain = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), 4)
    for callback in (ActivationAnnealing(1), MergeAtFitEnd()):
        with pytest.raises(MisconfigurationException, match=rf"{type(callback).__name__}.*Sequential"):
            fit(tmp_path, callback, module=plain, max_epochs=3)
