"""Whether a device computes what the CPU computes: logits and gradients of every kind of network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.check.answers import Answer, Setting
from lit_models import CIFARVGG, VGG, CIFARGoogLeNet, CIFARResNet, GoogLeNet, ResNet, TimmBackbone, VanillaNet
from lit_models.evaluation import evaluation_mode
from lit_models.interfaces import LogitsWithAux

SMALL: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "VanillaNet": (partial(VanillaNet, depth=6, width=16, stem_kernel=2, stem_stride=2), 32),
    "ResNet-20": (partial(CIFARResNet, 20), 32),
    "plain-20": (partial(CIFARResNet, 20, shortcut="none"), 32),
    "CIFARGoogLeNet": (CIFARGoogLeNet, 32),
}
LARGE: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "ResNet-56": (partial(CIFARResNet, 56, shortcut="B"), 32),
    "CIFARVGG": (CIFARVGG, 32),
    "ResNet-50-D": (partial(ResNet, 50, variant="D"), 64),
    "GoogLeNet": (GoogLeNet, 64),
    "VGG": (VGG, 64),
    "timm resnet18": (partial(TimmBackbone, "resnet18"), 64),
}
"""Networks by name, and the side of their images."""

TOLERANCES = {torch.float32: (1e-4, 0.1), torch.float64: (1e-10, 1e-8)}
"""Of logits, relative to the largest, and of gradients, relative to their norm.

Rounding moves some inputs of ReLU and of max-pools across a kink, where the gradient jumps: float64 is what decides.
"""


def parity(setting: Setting) -> Iterator[Answer]:
    """Float32 without TF32, and float64; on a CPU, which has nothing to be compared with, float32 beside float64."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for name, (build, side) in (SMALL if setting.quick else SMALL | LARGE).items():
            torch.manual_seed(0)
            net = build(num_classes=10).to(memory_format=torch.channels_last)
            images = torch.randn(8, 3, side, side)
            if not setting.on_gpu:
                double = logits_and_gradient(net, images, setting.device, torch.float64)
                single = logits_and_gradient(net, images, setting.device, torch.float32)
                yield _answer(name, "float32 beside float64", single, double, TOLERANCES[torch.float32])
                continue
            for dtype, tolerances in TOLERANCES.items():
                here = logits_and_gradient(net, images, torch.device("cpu"), dtype)
                there = logits_and_gradient(net, images, setting.device, dtype)
                label = f"{str(dtype).removeprefix('torch.')} beside the CPU's"
                yield _answer(name, label, there, here, tolerances)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def logits_and_gradient(
    net: nn.Module, images: Tensor, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the cross-entropy with respect to all parameters, in evaluation mode.

    Batch statistics are those of ``images``: random networks would otherwise blow up.
    """
    net = copy.deepcopy(net).to(device, dtype)
    images = images.to(device, dtype, memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
    with evaluation_mode(net):
        output: Any = net(images)
    logits = output.logits if isinstance(output, LogitsWithAux) else output
    F.cross_entropy(logits, torch.arange(len(images), device=device) % 10).backward()
    gradients = [parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None]
    return logits.detach().double().cpu(), torch.cat(gradients).double().cpu()


def _answer(
    name: str, label: str, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], tolerances: tuple[float, float]
) -> Answer:
    logits = float((ours[0] - theirs[0]).abs().max() / theirs[0].abs().max())
    gradient = float((ours[1] - theirs[1]).norm() / theirs[1].norm())
    text = f"logits {logits:.1e} (at most {tolerances[0]:.0e}), gradient {gradient:.1e} ({tolerances[1]:.0e})"
    passed = logits <= tolerances[0] and gradient <= tolerances[1]
    return Answer(f"{name}, {label}", text, passed, {"logits": logits, "gradient": gradient})
