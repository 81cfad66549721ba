"""Half precision, as far as it can be proven without a GPU."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from callbacks import ActivationAnnealing, GradientStatistics, WeightAveraging
from datamodules import Digits
from lit_models import CIFARResNet, Distillation, ImageClassifier, VanillaNet
from lit_models.tasks.teacher import Teacher


def vanillanet():
    return VanillaNet(10, in_channels=1, depth=6, width=4, stem_kernel=1, stem_stride=1)


def resnet():
    return CIFARResNet(8, num_classes=10, in_channels=1, width=4)


QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


def classifier(make_net, **arguments) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(make_net(), 10, **{"lr": 0.01, "schedule": "constant", **arguments})


def half_precision(init_scale: float = 2.0**16) -> dict:
    """What a Trainer has on a GPU where its precision is 16-mixed."""
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    return {"plugins": [MixedPrecision("16-mixed", device="cpu", scaler=scaler)]}


# Everything on a CUDA device that need not exist


def assert_steps_wait_for_no_device(module, fake_cuda):
    """Forward pass, loss and metrics of training steps, with mixed targets and without, and of a validation step."""
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    module.log_dict = lambda values, **_: logged.update(values)
    module.optimizers = lambda: SimpleNamespace(param_groups=[{"lr": 0.1}])
    mode, move = fake_cuda
    with mode:
        move(module)
        if isinstance(module, Distillation):
            move(module.teacher.net)
            module.teacher._renormalisation = tuple(map(move, module.teacher._renormalisation))
        images, labels = torch.empty(4, 1, 32, 32, device="cuda"), torch.empty(4, dtype=torch.int64, device="cuda")
        for targets in (labels, torch.empty(4, 10, device="cuda")):
            loss = module.training_step((images, targets), 0)
            assert loss.device.type == "cuda"
            assert loss.requires_grad
        module.eval()
        module.validation_step((images, labels), 0)
    module.on_train_epoch_end()
    assert {"train/top1", "train/mixed_top1", "val/loss", "val/top1"} <= logged.keys()
    assert module.step_metrics["train/loss"].device.type == "cuda"
    assert module.step_metrics["lr"].device.type == "cpu"


def test_steps_wait_for_no_device(any_network, fake_cuda):
    with torch.device("meta"):  # nothing is computed
        module = classifier(any_network.build)
    assert_steps_wait_for_no_device(module, fake_cuda)


def test_steps_of_a_distillation_wait_for_no_device(fake_cuda):
    make_net = resnet
    module = Distillation(make_net(), 10, "none.ckpt")
    module.teacher = Teacher(make_net(), [0.5], [0.2]).expect([0.4], [0.3], torch.device("cpu"))
    assert_steps_wait_for_no_device(module, fake_cuda)


# Real steps in float16 with a gradient scaler


class Losses(L.Callback):
    """The loss of each batch, and the number of steps that no overflow skipped."""

    def __init__(self):
        self.losses, self.taken = [], 0

    def on_train_start(self, trainer, pl_module):
        trainer.optimizers[0].register_step_post_hook(self.count)

    def count(self, *_):
        self.taken += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.losses.append(outputs["loss"].item())


def test_twenty_float16_steps_have_finite_losses(tiny_network, tmp_path):
    seen, dtypes = Losses(), set()
    module = classifier(tiny_network.build)
    module.net.register_forward_hook(lambda net, inputs, output: dtypes.add(getattr(output, "logits", output).dtype))
    trainer = L.Trainer(
        default_root_dir=tmp_path, max_steps=20, limit_val_batches=0, callbacks=[seen], **QUIET, **half_precision()
    )
    trainer.fit(module, Digits(image_size=tiny_network.image_size, batch_size=4, mixup_alpha=0.2))
    assert dtypes == {torch.float16}
    assert len(seen.losses) == 20
    assert all(torch.tensor(seen.losses).isfinite())
    assert seen.taken >= 10  # the first ones find the scale
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32, torch.int64}


class Overflow(L.Callback):
    """Makes a gradient infinite in one step, and notes everything before and after each."""

    def __init__(self, step, averaging):
        self.step, self.averaging = step, averaging
        self.before, self.after = {}, {}

    def state(self, trainer, pl_module):
        return {
            "weights": [parameter.detach().clone() for parameter in pl_module.parameters()],
            "momentum": [state["momentum_buffer"].clone() for state in trainer.optimizers[0].state.values() if state],
            "average": [value.clone() for value in self.averaging._average_model.module.state_dict().values()],
            "averaged": self.averaging._average_model.n_averaged.item(),
            "lambda": pl_module.net.activation_lambda.item(),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "scale": trainer.precision_plugin.scaler.get_scale(),
            "global_step": trainer.global_step,
        }

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.before[trainer.global_step] = self.state(trainer, pl_module)

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            next(pl_module.parameters()).grad.view(-1)[0] = float("inf")

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after[trainer.global_step - 1] = self.state(trainer, pl_module)


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_skips_the_step_but_not_its_schedules(tmp_path, fused):
    averaging = WeightAveraging(0.5)
    overflow = Overflow(3, averaging)
    module = classifier(vanillanet, schedule="cosine", optimizer_args={"fused": fused})
    callbacks = [ActivationAnnealing(0.5, per="step"), averaging, overflow]
    options = {"max_epochs": 1, "limit_train_batches": 8, "limit_val_batches": 0}
    trainer = L.Trainer(default_root_dir=tmp_path, callbacks=callbacks, **options, **QUIET, **half_precision(2.0**8))
    trainer.fit(module, Digits(image_size=8, batch_size=4))

    def unchanged(step, name):
        pairs = zip(overflow.before[step][name], overflow.after[step][name], strict=True)
        return all(torch.equal(before, after) for before, after in pairs)

    assert sorted(overflow.after) == list(range(8))
    for step in range(1, 8):
        skipped = step == 3
        before, after = overflow.before[step], overflow.after[step]
        for name in ("weights", "momentum", "average"):
            assert unchanged(step, name) is skipped, (step, name)
        assert after["averaged"] == before["averaged"] + (fused or not skipped)  # for a fused one it is an update by 0
        assert after["scale"] == before["scale"] * (0.5 if skipped else 1)
        assert after["global_step"] == before["global_step"] + 1
        assert after["lr"] < before["lr"]
        assert before["lambda"] == pytest.approx(min(step / 4, 1))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_fused_optimizer_sees_and_shows_the_gradients_of_any_other(tmp_path, name):
    """Clipped, logged and in the weights; it would get those times the scale, and refuse to clip them."""

    def fit(fused):
        module = classifier(resnet, optimizer=name, optimizer_args={"fused": fused})
        trainer = L.Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            limit_train_batches=4,
            limit_val_batches=0,
            gradient_clip_val=0.1,
            callbacks=[GradientStatistics()],
            **QUIET,
            **half_precision(2.0**8),
        )
        trainer.fit(module, Digits(image_size=8, batch_size=8))
        assert type(trainer.optimizers[0]).__module__.startswith("torch")
        assert bool(trainer.optimizers[0].defaults["fused"]) is fused
        norms = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("gradient")}
        return norms, module.state_dict()

    for fused, ordinary in zip(fit(True), fit(False), strict=True):
        assert fused.keys() == ordinary.keys()
        for key, value in fused.items():
            torch.testing.assert_close(value, ordinary[key], rtol=1e-4, atol=1e-6, msg=key)


# bfloat16, which a CPU has


def test_bfloat16_logits_are_close_to_float32(tiny_network):
    """Within 2% of the largest logit: bfloat16 has 8 significant bits, an error of 0.4% in each operation."""
    module, side = classifier(tiny_network.build), tiny_network.image_size
    images = torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0))
    module(images)  # batch statistics
    module.eval()
    with torch.no_grad():
        expected = module(images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(images)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_and_probabilities_are_float32(dtype):
    """Equal to those of the same logits in float32, also where autocast would have it otherwise."""
    module = classifier(resnet, label_smoothing=0.1).eval()
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    with torch.no_grad(), torch.autocast("cpu", dtype):
        logits = module(images)
        loss, probabilities = module.loss(logits, labels), module.predict_step((images, labels), 0)
    assert logits.dtype == dtype
    assert loss.dtype == probabilities.dtype == torch.float32
    assert torch.equal(loss, module.loss(logits.float(), labels))
    assert torch.equal(loss, module.loss(logits, labels))
    assert torch.equal(probabilities, logits.float().softmax(1))


def test_digits_are_learned_as_well_in_bfloat16(tmp_path):
    """Mean test top-1 over five seeds, within a point: 96.0% and 96.2% where it was written."""

    def top1(precision, seed):
        torch.manual_seed(seed)
        module = ImageClassifier(CIFARResNet(8, num_classes=10, in_channels=1, width=8), 10, lr=0.2)
        trainer = L.Trainer(default_root_dir=tmp_path, max_epochs=4, limit_val_batches=0, precision=precision, **QUIET)
        data = Digits(image_size=8, batch_size=64, seed=seed)
        trainer.fit(module, data)
        return trainer.test(module, data, verbose=False)[0]["test/top1"]

    accuracy = {
        precision: sum(top1(precision, seed) for seed in range(5)) / 5 for precision in ("32-true", "bf16-mixed")
    }
    assert accuracy["32-true"] > 0.93
    assert abs(accuracy["bf16-mixed"] - accuracy["32-true"]) <= 0.01
