"""Print what a fit would do: batch, learning rate, decay, cost; train nothing."""

from __future__ import annotations

import math
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from callbacks import ActivationAnnealing, StochasticDepth, WeightAveraging
from callbacks.activation_annealing import annealing_epochs
from callbacks.stochastic_depth import survival_probs
from experiments.cli.command_line import FathomCLI
from lit_models import Distillation, ImageClassifier
from lit_models.cost import count_branch_macs, count_macs, count_parameters
from lit_models.tasks.optimization import global_batch_size
from lit_models.tasks.schedules import Factor, steps_per_epoch

Lines = dict[str, str]


def explain(args: list[str]) -> None:
    """Print what ``fathom fit`` would do with the same flags; train nothing and write nothing but the curve."""
    parser = ArgumentParser(
        prog="fathom explain",
        usage="fathom explain --config EXPERIMENT.yaml [--curve PNG] [options of fathom fit]",
        description="Print what fathom fit would do with the same flags, and train nothing. It needs the data, to"
        " count the steps; where they are not here, others stand in: --data datamodules.Digits --data.image_size 224",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--curve", type=Path, metavar="PNG", help="draw the learning rate into this file")
    options, fit_flags = parser.parse_known_args(args)
    cli = ExplainCLI(["fit", *fit_flags])
    lines, factor = cli.explanation
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
    if options.curve:
        steps = cli.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise MisconfigurationException("a fit without end has no curve: set --trainer.max_epochs")
        draw_curve(factor, cli.model.peak_lr, int(steps)).savefig(options.curve, dpi=110)
        print(f"{options.curve} is written")


class ExplainCLI(FathomCLI):
    """The command line of ``fit`` up to where training would start."""

    explanation: tuple[Lines, Factor]

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        self.save_config_callback = None
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """A fit would make its run directory here."""

    def _loggers(self, *_: Any) -> list[Logger]:
        return []

    def fit(self, model: L.LightningModule, datamodule: L.LightningDataModule, **_: Any) -> None:
        """In the place of the trainer's."""
        if not isinstance(model, ImageClassifier):
            raise MisconfigurationException(
                f"explain knows the recipe of an ImageClassifier, not {type(model).__name__}"
            )
        prepare(self.trainer, model, datamodule)
        self.explanation = explanation(self.trainer, model, datamodule)


def prepare(trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> None:
    """What ``trainer.fit`` does before it configures the optimizer, in this process alone."""
    trainer.state.fn = TrainerFn.FITTING
    trainer.training = True
    trainer.strategy.connect(model)
    trainer._data_connector.attach_data(model, datamodule=data)
    data.prepare_data()
    data.setup("fit")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        callback.setup(trainer, model, "fit")
    model.setup("fit")


def explanation(trainer: L.Trainer, model: ImageClassifier, data: Any) -> tuple[Lines, Factor]:
    """What the fit of ``trainer``, which knows its model and data, consists of: text by topic, and the schedule."""
    configured: Any = model.configure_optimizers()
    optimizer, factor = configured["optimizer"], configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
    images = data.report()["train_images"]
    lines = {
        "network": f"{type(model.net).__name__}, {count_parameters(model.net):,} parameters",
        "data": f"{type(data).__name__}, {images:,} training images of {data.image_size} pixels,"
        f" {data.num_classes} classes",
        "batch": f"{global_batch_size(trainer):,} images a step: batches of {data.batch_size} × {trainer.world_size}"
        f" (devices) × {trainer.accumulate_grad_batches} (accumulated)",
        "steps": f"{trainer.estimated_stepping_batches:,} in all, {steps_per_epoch(trainer):,} an epoch",
        "precision": str(trainer.precision),
        "optimizer": optimizer_line(model, optimizer),
        "learning rate": learning_rate_lines(trainer, model, factor),
        "groups": "\n".join(group_line(group) for group in optimizer.param_groups),
        "zero-γ": names(zero_gamma_layers(model.net)),
        "loss": loss_line(model),
        "mixing": mixing_line(data),
        **teacher_lines(model),
        **callback_lines(trainer, model),
    }
    return lines | {"training cost": cost_lines(trainer, model, data, images)}, factor


def optimizer_line(model: ImageClassifier, optimizer: Optimizer) -> str:
    """Which one, and what decays."""
    exempt = "biases and 1-D parameters exempt" if model.no_bias_decay else "all parameters"
    return f"{model.optimizer_name} ({type(optimizer).__name__}), weight decay {model.weight_decay:g}, {exempt}"


def learning_rate_lines(trainer: L.Trainer, model: ImageClassifier, factor: Factor) -> str:
    """Scaling, schedule, and the learning rate at a few steps."""
    peak, steps, warmup = model.peak_lr, trainer.estimated_stepping_batches, model.warmup_steps
    lines = [f"{peak:g} at its peak"]
    if model.lr_batch_size is not None:
        lines[0] += f", which is {model.lr:g} for {model.lr_batch_size} images"
    schedule: str = model.schedule
    if schedule == "step":
        schedule += f", a tenth after each of {', '.join(f'{epoch:g}' for epoch in model.milestones)} epochs"
    lines.append(f"{warmup:,} steps of warm-up, then {schedule}" if warmup else schedule)
    if not math.isinf(steps):
        last = int(steps) - 1
        shown = dict.fromkeys((0, min(warmup, last), last // 2, last))
        lines.append(", ".join(f"{peak * factor(step):.3g} in step {step + 1:,}" for step in shown))
    return "\n".join(lines)


def group_line(group: dict[str, Any]) -> str:
    """A parameter group."""
    count = sum(parameter.numel() for parameter in group["params"])
    scale = f", learning rate × {group['lr_scale']:.3g}" if "lr_scale" in group else ""
    return f"weight decay {group['weight_decay']:g}{scale}: {count:,} parameters in {len(group['params'])} tensors"


def zero_gamma_layers(net: nn.Module) -> list[str]:
    """The layers of batch normalisation whose γ is zero."""
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.any()
    ]


def names(layers: list[str]) -> str:
    """How many, the first and the last."""
    if len(layers) < 2:
        return layers[0] if layers else "none"
    return f"{len(layers)} layers, {layers[0]} to {layers[-1]}"


def loss_line(model: ImageClassifier) -> str:
    """Which one, and the target of the true class and of each other one."""
    name, epsilon, classes = model.loss_name.replace("_", "-"), model.label_smoothing, model.num_classes
    if not epsilon:
        return f"{name}, no label smoothing"
    other = epsilon / classes
    return f"{name}, label smoothing to {1 - epsilon + other:.4g} for the true class, {other:.4g} for each other"


def mixing_line(data: Any) -> str:
    """Mixup and CutMix."""
    alphas = {"mixup": data.mixup_alpha, "CutMix": data.cutmix_alpha}
    used = [f"{name} with α = {alpha:g}" for name, alpha in alphas.items() if alpha]
    if not used:
        return "none"
    off = f", none in the last {data.mix_off_epochs} epochs" if data.mix_off_epochs else ""
    return f"{' or '.join(used)}, on {data.mix_prob:.0%} of the batches{off}"


def teacher_lines(model: ImageClassifier) -> Lines:
    """Who is asked in distillation."""
    if not isinstance(model, Distillation):
        return {}
    halved = ", half of the sum" if model.halved else ""
    return {"teacher": f"{model.teacher_source}, temperature {model.temperature:g}{halved}"}


def callback_lines(trainer: L.Trainer, model: ImageClassifier) -> Lines:
    """What changes with time."""
    lines = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ActivationAnnealing):
            end = annealing_epochs(callback.epochs, callback.per, trainer.max_epochs)
            lines["annealing"] = f"λ from 0 to 1 in {end:g} epochs, {callback.shape}, by {callback.per}"
        elif isinstance(callback, StochasticDepth):
            last = callback.schedule[-1]
            lines["stochastic depth"] = f"p_L = {last:g}, {callback.decay}, by {callback.mode}"
        elif isinstance(callback, WeightAveraging):
            span = f"{1 / (1 - callback.decay):,.0f} steps"
            lines["weight averaging"] = f"decay {callback.decay:g}, which spans about {span}"
    return lines


def cost_lines(trainer: L.Trainer, model: ImageClassifier, data: Any, images: int) -> str:
    """Multiply-adds of an image and of the fit; the backward pass counts as two forward passes."""
    shape = (data.in_channels, data.image_size, data.image_size)
    forward = float(count_macs(model.net, shape))
    dropped = ""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticDepth):
            branches = count_branch_macs(model.net, shape)
            probs = survival_probs(len(branches), callback.schedule[-1], callback.decay)
            forward -= sum((1 - prob) * macs for prob, macs in zip(probs, branches, strict=True))
            dropped = " expected"
    macs = EngFormatter(places=2)
    line = f"{macs(forward)} multiply-adds{dropped} forward, {macs(3 * forward)} forward and backward for an image"
    taught = 0
    if isinstance(model, Distillation) and model.teacher is not None:
        taught = count_macs(model.teacher.net, shape)
        line += f", and {macs(taught)} of the teacher"
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        return line
    an_epoch = images * trainer.num_training_batches / len(data.train_dataloader())
    seen = an_epoch * steps / steps_per_epoch(trainer)
    return f"{line}\n{macs((3 * forward + taught) * seen)} for the fit of {seen:,.0f} images"


def draw_curve(factor: Factor, peak: float, steps: int) -> Figure:
    """The learning rate in each step, of which at most 2,000 are drawn."""
    shown = range(0, steps, max(steps // 2000, 1))
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([step + 1 for step in shown], [peak * factor(step) for step in shown])
    axes.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    return figure
