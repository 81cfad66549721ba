"""Distillation: the loss against float64, and the teacher, who is asked and never changed, copied or saved."""

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import WeightAveraging
from datamodules import Digits
from lit_models import CheckpointError, CIFARResNet, Distillation, ImageClassifier, load_checkpoint
from lit_models.checkpoints import classifier_checkpoint, write_atomically
from lit_models.tasks.distillation import soft_loss
from lit_models.tasks.teacher import Teacher, load_teacher

TEACHER = {"depth": 8, "num_classes": 10, "in_channels": 1, "width": 4}


@pytest.fixture
def teacher_path(tmp_path):
    torch.manual_seed(1)
    net = CIFARResNet(**TEACHER)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    path = tmp_path / "teacher.ckpt"
    write_atomically(classifier_checkpoint(net, TEACHER), path)
    return path


def student(teacher, **arguments) -> Distillation:
    torch.manual_seed(0)
    net = CIFARResNet(8, num_classes=10, in_channels=1, width=2)
    return Distillation(net, 10, str(teacher), schedule="constant", **arguments)


def trainer(path, *callbacks, **arguments) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    steps = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1}
    return L.Trainer(
        default_root_dir=path, callbacks=list(callbacks), accelerator="cpu", **{**quiet, **steps, **arguments}
    )


def digits(**arguments) -> Digits:
    return Digits(image_size=8, batch_size=8, **arguments)


def smoothed_cross_entropy(logits, labels, smoothing):
    """In float64, of classes (N,)."""
    targets = F.one_hot(labels, logits.shape[1]).double() * (1 - smoothing) + smoothing / logits.shape[1]
    return -(targets * logits.double().log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_soft_loss_and_its_gradient_equal_the_formula_in_float64(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(6, 10, generator=generator)
    teacher_logits = 5 * torch.randn(6, 10, generator=generator)
    logits.requires_grad_()
    loss = soft_loss(logits, teacher_logits, temperature)
    loss.backward()

    exponentials = [(values.detach().double() / temperature).exp() for values in (logits, teacher_logits)]
    q, p = (values / values.sum(1, keepdim=True) for values in exponentials)
    assert loss.item() == pytest.approx(temperature**2 * -(p * q.log()).sum(1).mean().item(), rel=1e-6)
    torch.testing.assert_close(logits.grad.double(), temperature * (q - p) / 6, rtol=1e-4, atol=1e-6)


def test_half_precision_logits_give_a_float32_loss():
    logits, teacher_logits = torch.randn(4, 10).half(), torch.randn(4, 10).half()
    loss = soft_loss(logits, teacher_logits, 20)
    assert loss.dtype == torch.float32
    assert loss == soft_loss(logits.float(), teacher_logits.float(), 20)


@pytest.mark.parametrize("halved", [False, True])
def test_a_training_step_minimises_the_sum_or_half_of_it(teacher_path, tmp_path, halved):
    """Of the smoothed loss of the labels and the soft loss, as the whole step's gradient shows."""
    seen = {}

    class Record(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen["batch"] = batch
            seen["state"] = {name: value.clone() for name, value in pl_module.net.state_dict().items()}

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen["gradient"] = pl_module.net.fc.weight.grad.clone()

    module = student(teacher_path, temperature=4.0, halved=halved, label_smoothing=0.1)
    fit = trainer(tmp_path, Record(), limit_train_batches=1, limit_val_batches=0)
    fit.fit(module, digits())

    images, labels = seen["batch"]
    net = CIFARResNet(8, num_classes=10, in_channels=1, width=2).double().train()
    net.load_state_dict(seen["state"])
    logits = net(images.double())
    with torch.no_grad():
        teacher_logits = load_checkpoint(teacher_path).double()(images.double())
    hard = smoothed_cross_entropy(logits, labels, 0.1)
    soft = -16 * ((teacher_logits / 4).softmax(1) * (logits / 4).log_softmax(1)).sum(1).mean()
    loss = (hard + soft) / 2 if halved else hard + soft
    loss.backward()
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert fit.callback_metrics["train/hard_loss"].item() == pytest.approx(hard.item(), rel=1e-5)
    assert fit.callback_metrics["train/soft_loss"].item() == pytest.approx(soft.item(), rel=1e-5)
    torch.testing.assert_close(seen["gradient"].double(), net.fc.weight.grad, rtol=1e-3, atol=1e-5)


class Eavesdrop(L.Callback):
    """What teacher and student were shown in each step, and how the teacher was when it answered."""

    def __init__(self):
        self.teacher_images, self.student_images, self.answers, self.training = [], [], [], []

    def on_train_start(self, trainer, pl_module):
        self.net = pl_module.teacher.net
        self.before = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.register_forward_hook(self.of_teacher)
        self.hook = pl_module.net.register_forward_pre_hook(lambda net, inputs: self.student_images.append(inputs[0]))

    def on_train_end(self, trainer, pl_module):
        self.hook.remove()

    def of_teacher(self, net, inputs, output):
        self.teacher_images.append(inputs[0])
        self.answers.append(output)
        self.training.append(net.training)


def test_the_teacher_sees_the_same_mixed_images_and_is_left_as_it_was(teacher_path, tmp_path):
    ears, module = Eavesdrop(), student(teacher_path)
    last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    averaging = WeightAveraging(0.5)
    fit = trainer(tmp_path, ears, last, averaging, limit_val_batches=0, precision="bf16-mixed")
    for _ in range(2):  # a second fit finds what the first one left
        fit.fit(module, digits(mixup_alpha=1.0))
        assert not averaging._average_model.module.teacher
        fit.fit_loop.max_epochs += 1

    assert len(ears.teacher_images) == 6
    assert not any(ears.training)
    for shown, answer, seen in zip(ears.teacher_images, ears.answers, ears.student_images, strict=True):
        assert torch.equal(shown, seen)
        assert shown.is_contiguous(memory_format=torch.channels_last)
        assert answer.dtype == torch.bfloat16
        assert not answer.requires_grad
    assert "train/mixed_top1" in fit.callback_metrics
    assert all(torch.equal(value, ears.before[name]) for name, value in ears.net.state_dict().items())

    names = set(ImageClassifier(CIFARResNet(8, num_classes=10, in_channels=1, width=2), 10).state_dict())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(checkpoint["current_model_state"]) == names
    assert len(list(module.parameters())) == len(list(module.net.parameters()))
    optimized = sum(len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"])
    assert optimized == len(list(module.net.parameters()))


def test_a_distilled_student_is_loaded_and_tested_without_its_teacher(teacher_path, tmp_path):
    module = student(teacher_path)
    trainer(tmp_path, ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)).fit(module, digits())
    teacher_path.unlink()
    loaded = load_checkpoint(tmp_path / "last.ckpt")
    assert type(loaded) is Distillation
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
    metrics = trainer(tmp_path).test(module, digits(), verbose=False)
    assert 0 <= metrics[0]["test/top1"] <= 1


def test_the_teacher_gets_images_as_it_was_trained_on_them():
    """Whatever the student's normalisation, also where images are mixed."""
    net = CIFARResNet(8, num_classes=10, width=4).eval()
    raw = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    means, stds = torch.tensor([[0.5, 0.4, 0.3], [0.1, 0.2, 0.3]]), torch.tensor([[0.2, 0.3, 0.1], [0.5, 0.5, 0.4]])
    ours, own = ((raw - m[:, None, None]) / s[:, None, None] for m, s in zip(means, stds, strict=True))
    teacher = Teacher(net, means[1].tolist(), stds[1].tolist())
    teacher.expect(means[0].tolist(), stds[0].tolist(), torch.device("cpu"))
    with torch.no_grad():
        expected = net(0.3 * own[0] + 0.7 * own[1])
    torch.testing.assert_close(teacher(0.3 * ours[0] + 0.7 * ours[1]), expected, rtol=1e-4, atol=1e-5)


def test_a_timm_teacher_from_a_file(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=7).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    teacher = load_teacher("timm:test_resnet", str(tmp_path / "weights.pth"), 7)
    assert teacher.mean == net.pretrained_cfg["mean"]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), net(images))


def test_a_wrong_teacher_is_refused_in_one_sentence(teacher_path, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for source, weights, kind, sentence in (
        (str(tmp_path / "nowhere.ckpt"), None, FileNotFoundError, r"no teacher .*nowhere\.ckpt.*--model\.teacher"),
        (str(teacher_path), None, CheckpointError, r"teacher\.ckpt knows 10 classes and the student 7"),
        (str(tmp_path / "text.pth"), None, CheckpointError, r"text\.pth"),
        (str(teacher_path), "weights.pth", MisconfigurationException, "has its own"),
        ("timm:resnet5", None, MisconfigurationException, "resnet50"),
        ("timm:test_resnet", str(tmp_path / "nowhere.pth"), FileNotFoundError, r"nowhere\.pth"),
        (
            "timm:test_resnet",
            str(tmp_path / "other.pth"),
            CheckpointError,
            r"other\.pth does not hold the weights",
        ),
        ("timm:test_resnet", str(tmp_path / "text.pth"), CheckpointError, r"text\.pth does not hold the weights"),
    ):
        with pytest.raises(kind, match=sentence) as error:
            load_teacher(source, weights, 7)
        assert "\n" not in str(error.value)


def test_a_missing_teacher_stops_the_fit_before_its_first_step(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no teacher .*nowhere\.ckpt"):
        trainer(tmp_path).fit(student(tmp_path / "nowhere.ckpt"), digits())


def test_a_temperature_is_positive():
    with pytest.raises(MisconfigurationException, match="temperature"):
        student("teacher.ckpt", temperature=0.0)
