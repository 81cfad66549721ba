"""Averaged weights in real fits, against a plain recursion in float64."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import ActivationAnnealing, MergeAtFitEnd, StochasticDepth, WeightAveraging
from callbacks.weight_averaging import Average
from datamodules import Digits
from lit_models import CIFARResNet, ImageClassifier, VanillaNet, load_checkpoint

DECAY = 0.7
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def vanillanet() -> VanillaNet:
    return VanillaNet(4, depth=5, width=4, stem_kernel=2, stem_stride=2, series_order=1)


def resnet_classifier() -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(CIFARResNet(8, num_classes=4, width=4), 4, lr=0.1, schedule="constant")


def floating(state: dict) -> dict:
    return {name: value.detach().clone().double() for name, value in state.items() if value.is_floating_point()}


class Weights(L.Callback):
    """The trained weights after each optimizer step, in float64."""

    def __init__(self):
        self.after_step = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after_step.setdefault(trainer.global_step, floating(pl_module.state_dict()))


def recursion(weights: Weights, first: int = 1, every: int = 1) -> dict:
    """W' ← β·W' + (1 − β)·W over the steps of the fit."""
    average = None
    for step, current in weights.after_step.items():
        if step < first or (step - 1) % every:
            continue
        if average is None:
            average = current
        else:
            average = {name: DECAY * average[name] + (1 - DECAY) * value for name, value in current.items()}
    return average


def never_averaged(name: str) -> bool:
    return name.endswith(("activation_lambda", "survival_prob", "num_batches_tracked"))


def assert_equals_recursion(state: dict, average: dict, current: dict) -> None:
    assert any("running_var" in name for name in average)
    for name, value in state.items():
        if never_averaged(name):
            assert torch.equal(value, current[name]), name
        else:
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize(("first", "every", "accumulate"), [(1, 1, 1), (4, 1, 1), (1, 3, 1), (1, 1, 2)])
def test_the_average_is_the_recursion_over_optimizer_steps(fit, tmp_path, first, every, accumulate):
    weights = Weights()
    averaging = WeightAveraging(DECAY, update_every_n_steps=every, update_starting_at_step=first - 1)
    last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    module = fit(
        tmp_path, averaging, weights, last, ActivationAnnealing(1), max_epochs=2, accumulate_grad_batches=accumulate
    )
    assert len(weights.after_step) >= 4
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    current = checkpoint["current_model_state"]
    average = recursion(weights, first, every)
    assert_equals_recursion(checkpoint["state_dict"], average, current)
    assert_equals_recursion(module.state_dict(), average, current)
    assert checkpoint["state_dict"]["net.activation_lambda"] == 1
    assert current["net.stem.activation.bn.num_batches_tracked"] == 8
    for name, value in list(weights.after_step.values())[-1].items():
        assert torch.equal(current[name].double(), value), name
    assert any(not torch.equal(value, current[name]) for name, value in checkpoint["state_dict"].items())


def test_survival_probabilities_are_the_trained_network_s(fit, tmp_path):
    averaging, last = WeightAveraging(DECAY), ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    fit(tmp_path, StochasticDepth(0.5), averaging, last, module=resnet_classifier(), max_epochs=1)
    net = CIFARResNet(8, num_classes=4, width=4)
    averaged = load_checkpoint(tmp_path / "last.ckpt", net=net)
    probs = [block.survival_prob.item() for block in averaged.net.residual_blocks().values()]
    assert probs == pytest.approx([5 / 6, 4 / 6, 3 / 6])


class Validations(L.Callback):
    """The weights and the logits of each validation, and the first batch's."""

    def __init__(self):
        self.weights, self.metrics = [], []

    def on_validation_batch_start(self, trainer, pl_module, *_):
        if not trainer.sanity_checking and len(self.weights) == trainer.current_epoch:
            self.weights.append(floating(pl_module.state_dict()))

    def on_validation_end(self, trainer, pl_module):
        self.metrics.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def test_validation_sees_the_average_and_counts_the_current_weights_too(fit, data, tmp_path):
    weights, validations, module = Weights(), Validations(), resnet_classifier()
    fit(tmp_path, WeightAveraging(DECAY), weights, validations, module=module, max_epochs=3)
    images, labels = data().dataset.tensors

    def top1(state):
        module.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
        with torch.no_grad():
            return (module.eval()(images).argmax(1) == labels).double().mean().item()

    assert_equals_recursion(validations.weights[-1], recursion(weights), weights.after_step[12])
    for epoch, metrics in enumerate(validations.metrics[-3:]):
        assert metrics["val/current_top1"] == pytest.approx(top1(weights.after_step[4 * epoch + 4])), epoch
        assert metrics["val/top1"] == pytest.approx(top1(validations.weights[epoch])), epoch
    assert len({metrics["val/current_top1"] for metrics in validations.metrics[-3:]}) > 1
    assert any(metrics["val/current_top1"] != metrics["val/top1"] for metrics in validations.metrics[-3:])


def test_before_the_first_update_nothing_takes_the_place_of_the_weights(fit, tmp_path):
    weights, validations = Weights(), Validations()
    last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    module = fit(
        tmp_path, WeightAveraging(DECAY, update_starting_at_step=100), weights, validations, last, max_epochs=1
    )
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "val/current_top1" not in validations.metrics[-1]
    for name, value in weights.after_step[4].items():
        assert torch.equal(validations.weights[-1][name], value), name
        assert torch.equal(checkpoint["state_dict"][name].double(), value), name
        assert torch.equal(module.state_dict()[name].double(), value), name


def test_a_resumed_fit_goes_on_bit_for_bit(tmp_path):
    """From the middle of the first epoch, of four batches, from its end, and from the second one."""

    def state(directory, ckpt_path=None):
        torch.manual_seed(0)
        net = CIFARResNet(8, num_classes=10, in_channels=1, width=4)
        trainer = L.Trainer(
            max_epochs=2,
            default_root_dir=directory,
            callbacks=[
                WeightAveraging(DECAY),
                StochasticDepth(0.5, mode="sample"),
                ModelCheckpoint(directory, "{step}", every_n_train_steps=1, save_top_k=-1),
            ],
            num_sanity_val_steps=0,
            **QUIET,
        )
        data = Digits(image_size=8, batch_size=8, train_size=32, val_fraction=0.02)
        trainer.fit(ImageClassifier(net, 10, lr=0.1), data, ckpt_path=ckpt_path, weights_only=True)
        return torch.load(directory / "step=8.ckpt", weights_only=True)

    whole = state(tmp_path / "whole")
    for step in (3, 4, 5):
        resumed = state(tmp_path / f"from {step}", tmp_path / "whole" / f"step={step}.ckpt")
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert whole[part].keys() == resumed[part].keys()
            for name, value in whole[part].items():
                assert torch.equal(value, resumed[part][name]), (step, part, name)
    assert whole["averaging_state"]["n_averaged"] == 8


def test_the_merged_network_is_the_average(fit, data, tmp_path):
    """Whatever the order of the callbacks."""
    for number, order in enumerate(([0, 1, 2], [2, 1, 0])):
        callbacks = [WeightAveraging(DECAY), ActivationAnnealing(1), MergeAtFitEnd()]
        path = tmp_path / str(number)
        last = ModelCheckpoint(path, "last", save_on_train_epoch_end=True)
        fit(path, *[callbacks[index] for index in order], last, max_epochs=2)
        merged = VanillaNet(4, depth=5, width=4, stem_kernel=2, stem_stride=2, series_order=1, reparameterized=True)
        averaged = load_checkpoint(path / "last.ckpt", net=vanillanet())
        images = data().dataset.tensors[0]
        with torch.no_grad():
            expected = averaged(images)
            torch.testing.assert_close(load_checkpoint(path / "merged.ckpt", net=merged)(images), expected)


class Failure(L.Callback):
    def on_validation_batch_start(self, trainer, pl_module, *_):
        if trainer.current_epoch == 1:
            raise RuntimeError("the disk is full")


def test_an_exception_in_validation_leaves_the_weights_the_right_way_round(fit, model, tmp_path):
    weights, module = Weights(), model()
    saved = ModelCheckpoint(tmp_path, "saved", save_on_exception=True, every_n_epochs=10)
    with pytest.raises(RuntimeError, match="disk is full"):
        fit(tmp_path, saved, weights, Failure(), WeightAveraging(DECAY), module=module, max_epochs=2)
    checkpoint = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    assert_equals_recursion(checkpoint["state_dict"], recursion(weights), checkpoint["current_model_state"])
    for name, value in weights.after_step[8].items():
        assert torch.equal(checkpoint["current_model_state"][name].double(), value), name
        assert torch.equal(module.state_dict()[name].double(), value), name


class SaveInValidation(L.Callback):
    def on_validation_batch_start(self, trainer, pl_module, *_):
        trainer.save_checkpoint(trainer.default_root_dir + "/within.ckpt", weights_only=False)


def test_a_checkpoint_saved_within_a_validation_has_both_the_right_way_round(fit, tmp_path):
    weights = Weights()
    fit(tmp_path, weights, WeightAveraging(DECAY), SaveInValidation(), ActivationAnnealing(1), max_epochs=2)
    checkpoint = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert_equals_recursion(checkpoint["state_dict"], recursion(weights), checkpoint["current_model_state"])
    for name, value in weights.after_step[8].items():
        assert torch.equal(checkpoint["current_model_state"][name].double(), value), name


def test_a_test_after_the_fit_sees_the_average_of_the_checkpoint(data, model, tmp_path, recwarn):
    last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    trainer = L.Trainer(max_epochs=1, callbacks=[WeightAveraging(DECAY), last], default_root_dir=tmp_path, **QUIET)
    module = model()
    trainer.fit(module, data(), data())
    recwarn.clear()
    trainer.test(module, data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True, verbose=False)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in saved.items())
    assert not [warning for warning in recwarn if "averag" in str(warning.message).lower()]


def test_the_first_update_copies_in_a_step_that_overflows_too(model):
    """A fused optimizer then leaves the weights as they were, which are not those that the fit began with."""
    module = model()
    average = Average(module, DECAY)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    average.overflow = torch.ones(())
    average.update_parameters(module)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), module.parameters(), strict=True))


def test_a_decay_that_is_too_slow_for_the_fit_is_said(fit, tmp_path):
    with pytest.warns(UserWarning, match=r"10,000 steps, and this fit has 8.*100%"):
        fit(tmp_path, WeightAveraging(), max_epochs=2)


@pytest.mark.parametrize("arguments", [{"decay": 1.0}, {"decay": -0.1}, {"update_every_n_steps": 0}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(MisconfigurationException):
        WeightAveraging(**arguments)
