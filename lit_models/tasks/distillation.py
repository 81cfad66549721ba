"""Knowledge distillation (Hinton et al. 2015; Bag of Tricks, section 5.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lit_models.tasks.classification import Batch, ImageClassifier
from lit_models.tasks.teacher import Teacher, load_teacher


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²·CE(softmax(r/T), softmax(z/T)) of logits z and the teacher's r, both (N, K): mean over images, in float32.

    It is T² times the teacher's entropy where the two agree, so its size says little; its gradient is that of the
    divergence. T² keeps the gradient's scale when T changes.
    """
    probabilities = (teacher_logits.float() / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(logits.float() / temperature, probabilities)


class Distillation(ImageClassifier):
    """An ``ImageClassifier`` that also learns from the logits of a trained teacher.

    A training step minimises CE(y, z) + T²·CE(softmax(r/T), softmax(z/T)), the first with label smoothing where that is
    on. The teacher sees the very images the student does, mixed and augmented, under the same autocast; images are
    normalised anew for a teacher that was trained with another mean and deviation. It is loaded when a fit starts and
    is in no checkpoint: a distilled student is loaded, tested and merged without it.

    Args:
        net: the student, (N, C, H, W) images to (N, K) logits.
        num_classes: K.
        teacher: a checkpoint of this project, a run directory, or ``timm:NAME``.
        teacher_weights: file with the weights of a timm teacher; without one timm fetches those it has published.
        temperature: T.
        halved: minimise half the sum, as the authors' code does. Weight decay then counts twice as much beside it.
        **arguments: of :class:`ImageClassifier`.

    Raises:
        MisconfigurationException: for a temperature that is not positive.
        CheckpointError, FileNotFoundError: when a fit starts, for a teacher that is missing or of other classes.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        teacher: Annotated[str, Path],
        teacher_weights: Annotated[str, Path] | None = None,
        temperature: float = 20.0,
        halved: bool = False,
        **arguments: Any,
    ) -> None:
        if not temperature > 0:
            raise MisconfigurationException(f"the temperature of a distillation is positive, and {temperature} is not")
        super().__init__(net, num_classes, **arguments)
        self.teacher_source = teacher
        self.teacher_weights = teacher_weights
        self.temperature = temperature
        self.halved = halved
        self.teacher: Teacher | None = None

    def setup(self, stage: str) -> None:
        if stage == "fit":
            teacher = load_teacher(self.teacher_source, self.teacher_weights, self.num_classes)
            size, mean = self.hparams.get("image_size"), self.hparams.get("mean")
            if size and mean:
                teacher.check((len(mean), size, size), self.num_classes)
            self.teacher = teacher.expect(self.hparams.get("mean"), self.hparams.get("std"), self.device)

    @property
    def logs(self) -> tuple[str, ...]:
        return *super().logs, "train/hard_loss", "train/soft_loss"

    def explain(self, trainer: L.Trainer) -> dict[str, str]:
        halved = ", half of the sum" if self.halved else ""
        teacher = f"{self.teacher_source}, temperature {self.temperature:g}{halved}"
        return super().explain(trainer) | {"teacher": teacher}

    def teardown(self, stage: str) -> None:
        # Nothing but a fit asks the teacher, and a copy of the module is not to copy it.
        self.teacher = None

    def training_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        images, targets = batch
        assert self.teacher is not None
        hard, soft = self.loss(logits, targets), soft_loss(logits, self.teacher(images), self.temperature)
        self.log_step({"train/hard_loss": hard, "train/soft_loss": soft})
        return (hard + soft) / 2 if self.halved else hard + soft
