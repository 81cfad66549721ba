"""What the papers' algorithms rest on: skipped steps, merges, lesions and paths, on this device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from callbacks import WeightAveraging
from datamodules import Digits
from experiments.check.answers import Answer, Setting
from experiments.unravel.decomposition import gradients_by_length, unexplained
from experiments.unravel.lesions import lesion_errors, single_lesions
from experiments.unravel.path_gradients import residual_stack, stack_gradients
from lit_models import CIFARResNet, ImageClassifier, VanillaNet
from lit_models.evaluation import evaluation_mode
from lit_models.surgery.links import links
from lit_models.surgery.reparameterize import logit_difference, merged_copy


def properties(setting: Setting) -> Iterator[Answer]:
    """Without TF32, like the analyses themselves."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield _overflow(setting)
        yield _merge(setting)
        yield _lesion(setting)
        yield _paths(setting)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


class _Overflow(L.Callback):
    """Makes a gradient infinite in one step, and notes what the step changed."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.changed: dict[int, bool] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._before = copy.deepcopy(_everything(trainer, pl_module))

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == self.step:
            gradient = next(pl_module.parameters()).grad
            assert gradient is not None
            gradient.view(-1)[0] = float("inf")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        pairs = zip(self._before, _everything(trainer, pl_module), strict=False)
        self.changed[trainer.global_step - 1] = any(not torch.equal(before, after) for before, after in pairs)


def _everything(trainer: L.Trainer, pl_module: L.LightningModule) -> list[Tensor]:
    """Weights, and the state of the optimizer without its count of steps."""
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return [*pl_module.parameters(), *(value for value in states if isinstance(value, Tensor) and value.ndim)]


def _overflow(setting: Setting) -> Answer:
    torch.manual_seed(0)
    module = ImageClassifier(_vanillanet(), 10, lr=0.01, schedule="constant")
    forced = _Overflow(3)
    device = setting.device.type
    trainer = L.Trainer(
        accelerator="gpu" if setting.on_gpu else "cpu",
        devices=1,
        max_steps=6,
        limit_val_batches=0,
        default_root_dir=setting.folder,
        # On a CPU Lightning takes no scaler otherwise.
        plugins=[MixedPrecision("16-mixed", device, torch.amp.GradScaler(device, init_scale=2.0**8))],
        callbacks=[forced, WeightAveraging(0.5)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Digits(image_size=8, batch_size=4))
    passed = forced.changed == {step: step != 3 for step in range(6)}
    kept = "left as they were" if not forced.changed[3] else "CHANGED"
    return Answer("overflow in float16", f"weights and momentum {kept} in its step alone", passed)


def _merge(setting: Setting) -> Answer:
    net = _vanillanet().to(setting.device)
    images = torch.randn(64, 1, 8, 8, device=setting.device)
    with torch.no_grad():
        for _ in range(20):
            net.train()(images)  # batch statistics that differ from those of the beginning
    net.set_activation_lambda(1.0)
    differences = {}
    for dtype in (torch.float32, torch.float64):
        before = copy.deepcopy(net).to(dtype).eval()
        differences[dtype] = logit_difference(before, merged_copy(before), images.to(dtype))[1]
    single, double = differences.values()
    text = f"{single:.1e} of the largest logit in float32, {double:.1e} in float64"
    passed = single <= 1e-4 and double <= 1e-10
    return Answer("merge", text, passed, {"float32": single, "float64": double})


def _lesion(setting: Setting) -> Answer:
    torch.manual_seed(0)
    net = CIFARResNet(14, in_channels=1, width=8).double()
    images, targets = torch.randn(256, 1, 8, 8, dtype=torch.float64), torch.arange(256) % 10
    net.train()(images)
    cuts = [frozenset[int](), *single_lesions(links(net))]
    with evaluation_mode(net):
        expected = lesion_errors(net, cuts, [(images, targets)])
        net.to(setting.device)
        errors = lesion_errors(net, cuts, [(images.to(setting.device), targets.to(setting.device))])
    difference = float(abs(errors - expected).max())
    text = f"errors of {len(cuts)} variants differ by {difference:.2g} from the CPU's"
    return Answer("lesions", text, difference == 0, {"difference": difference})


def _paths(setting: Setting) -> Answer:
    torch.manual_seed(0)
    net = CIFARResNet(20, in_channels=1, width=8).double().to(setting.device)
    images = torch.randn(16, 1, 8, 8, dtype=torch.float64, device=setting.device)
    targets = torch.arange(16, device=setting.device) % 10
    net.train()(images)
    chain = links(net)
    start, end = residual_stack(chain)
    with evaluation_mode(net):
        inputs, gradients = stack_gradients(chain, images, targets)
        terms = gradients_by_length(chain[start:end], inputs, gradients[-1])
    rest = float(unexplained(terms, gradients[0]))
    text = f"{len(terms)} lengths add up to the gradient but for {rest:.1e} of it"
    return Answer("paths", text, rest <= 1e-10, {"unexplained": rest})


def _vanillanet() -> VanillaNet:
    torch.manual_seed(0)
    return VanillaNet(10, in_channels=1, depth=6, width=4, stem_kernel=1, stem_stride=1)
