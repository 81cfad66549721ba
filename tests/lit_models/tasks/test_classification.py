"""The classifier: loss, metrics, parameter groups, learning rate at every step."""

import math

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks import LearningRateWarmup
from lit_models import ImageClassifier, VanillaNet


def classifier(num_classes: int = 6, **arguments) -> ImageClassifier:
    return ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes)), num_classes, **arguments)


def images_and_labels(count: int = 24, num_classes: int = 6) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 2, 2, generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=2)


def trainer(path, **arguments) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=path, **{**quiet, "enable_checkpointing": False, **arguments})


class RecordLearningRate(L.Callback):
    def __init__(self):
        self.lrs = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs[trainer.global_step] = optimizer.param_groups[0]["lr"]


def closed_form(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return 0.5 * (step + 1) / warmup
    return 0.25 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def test_learning_rate_of_every_step_is_the_closed_form_also_after_a_resume(tmp_path):
    """3 epochs of 12 batches, accumulation 4: 9 optimizer steps, the first 3 of them warm-up; resumed after 5."""

    def fit(record: RecordLearningRate, **arguments) -> None:
        callbacks = [
            record,
            LearningRateWarmup(epochs=1),
            ModelCheckpoint(tmp_path, "middle", every_n_train_steps=5, enable_version_counter=False),
        ]
        options = {"accumulate_grad_batches": 4, "enable_checkpointing": True, "max_epochs": 3}
        model = classifier(lr=0.5, schedule="cosine")
        trainer(tmp_path, callbacks=callbacks, **options).fit(model, images_and_labels(), **arguments)

    whole, resumed = RecordLearningRate(), RecordLearningRate()
    fit(whole)
    fit(resumed, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert sorted(whole.lrs) == list(range(9))
    assert sorted(resumed.lrs) == list(range(5, 9))
    for step, lr in [*whole.lrs.items(), *resumed.lrs.items()]:
        assert lr == pytest.approx(closed_form(step, warmup=3, total=9), abs=1e-12), step


def test_step_schedule_counts_its_milestones_from_the_first_epoch(tmp_path):
    record = RecordLearningRate()
    fit = trainer(tmp_path, max_epochs=4, callbacks=[record, LearningRateWarmup(steps=2)])
    fit.fit(classifier(lr=1.0, schedule="step", milestones=(1, 2.5)), images_and_labels(8))
    expected = [0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]
    assert [record.lrs[step] for step in range(16)] == pytest.approx(expected)


def test_a_step_schedule_without_milestones_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="milestones"):
        trainer(tmp_path, max_epochs=1).fit(classifier(schedule="step"), images_and_labels(8))


def test_warm_up_takes_one_length():
    for arguments in ({}, {"epochs": 1, "steps": 2}, {"steps": -1}):
        with pytest.raises(MisconfigurationException):
            LearningRateWarmup(**arguments)


def test_weight_decay_is_by_shape(tmp_path):
    """1-D parameters and biases don't decay; the kernels of the series activations do."""
    net = VanillaNet(10, depth=6, width=8, stem_kernel=2, stem_stride=2)
    model = ImageClassifier(net, 10, optimizer="adamw", lr=1e-3, weight_decay=0.3, schedule="constant")
    model.trainer = trainer(tmp_path, max_steps=1)
    model.trainer.fit_loop.epoch_loop.max_steps = 1
    groups = {
        group["weight_decay"]: group["params"] for group in model.configure_optimizers()["optimizer"].param_groups
    }
    assert set(groups) == {0.0, 0.3}
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    decayed = {names[id(parameter)] for parameter in groups[0.3]}
    exempt = {names[id(parameter)] for parameter in groups[0.0]}
    assert len(decayed | exempt) == len(names)
    assert decayed == {name for name, parameter in net.named_parameters() if parameter.ndim == 4}
    assert "blocks.0.activation.conv.weight" in decayed
    assert {"stem.convs.first.0.bias", "stem.convs.first.1.weight"} <= exempt


def test_bias_decay_can_be_had(tmp_path):
    model = classifier(no_bias_decay=False, weight_decay=0.1, schedule="constant")
    model.trainer = trainer(tmp_path, max_steps=1)
    (group,) = model.configure_optimizers()["optimizer"].param_groups
    assert group["weight_decay"] == 0.1
    assert len(group["params"]) == 2


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lamb"])
def test_optimizers_are_those_of_torch_and_timm(name, tmp_path):
    model = classifier(optimizer=name, schedule="constant")
    trainer(tmp_path, max_epochs=1).fit(model, images_and_labels(4))
    optimizer = model.optimizers().optimizer
    assert type(optimizer).__module__.split(".")[0] in ("torch", "timm")
    assert optimizer.defaults.get("nesterov", False) == (name == "sgd")


def test_an_unknown_optimizer_is_named_with_its_neighbours():
    with pytest.raises(MisconfigurationException, match=r"adamww.*adamw"):
        classifier(optimizer="adamww")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_takes_classes_and_probabilities(smoothing):
    model = classifier(label_smoothing=smoothing)
    logits, labels = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 5, 3, 3])
    target = F.one_hot(labels, 6) * (1 - smoothing) + smoothing / 6
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert model.loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    assert model.loss(logits, F.one_hot(labels, 6).float()).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("num_classes", "names"), [(4, {"top1"}), (5, {"top1", "top5"})])
def test_metrics_equal_their_definition(num_classes, names, tmp_path):
    """Micro averages over batches of unequal size; top-5 from five classes on."""
    data = DataLoader(images_and_labels(25, num_classes).dataset, batch_size=4)
    model = classifier(num_classes)
    metrics = trainer(tmp_path).test(model, data, verbose=False)[0]
    images, labels = data.dataset.tensors
    with torch.no_grad():
        logits = model(images)
    assert set(metrics) == {f"test/{name}" for name in names | {"loss"}}
    assert metrics["test/top1"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert metrics["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    if "top5" in names:
        in_five = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
        assert metrics["test/top5"] == pytest.approx(in_five)


def test_a_batch_without_images_changes_no_metric(tmp_path):
    """A rank may have none to evaluate."""
    module, loader = classifier(), images_and_labels()
    batches = list(loader)
    expected = trainer(tmp_path).validate(module, DataLoader(batches, batch_size=None), verbose=False)
    empty = tuple(tensor[:0] for tensor in batches[0])
    assert trainer(tmp_path).validate(module, DataLoader([*batches, empty], batch_size=None), verbose=False) == expected


def test_predictions_are_probabilities(tmp_path):
    predictions = trainer(tmp_path).predict(classifier(), images_and_labels(4))
    assert len(predictions) == 2
    torch.testing.assert_close(predictions[0].sum(1), torch.ones(2))


def test_training_accuracy_of_mixed_images_has_its_own_name(tmp_path):
    """The mean probability that the mixed targets give to the predicted classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 3, 2, 2, generator=generator)
    targets = torch.rand(10, 6, generator=generator).softmax(1)
    fit = trainer(tmp_path, max_epochs=1)
    model = classifier(lr=1e-12, schedule="constant")
    fit.fit(model, DataLoader(TensorDataset(images, targets), batch_size=4))
    with torch.no_grad():
        expected = targets.gather(1, model(images).argmax(1, keepdim=True)).mean().item()
    assert fit.callback_metrics["train/mixed_top1"].item() == pytest.approx(expected)
    assert "train/top1" not in fit.callback_metrics


def test_a_diverged_network_is_not_averaged_away(tmp_path):
    model = classifier()
    model.net[1].bias.data.fill_(float("nan"))
    metrics = trainer(tmp_path).test(model, images_and_labels(), verbose=False)[0]
    assert math.isnan(metrics["test/loss"])
