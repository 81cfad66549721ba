"""``fathom`` on two ranks: the rank that FAIL names fails, and that which NAN names finds a loss that is NaN.

Each writes what its validations evaluate. Arguments: those of ``fathom``. Lightning starts the second process by
running this file again.
"""

import os
import sys
from pathlib import Path

import torch

from callbacks import RunSummary, WeightAveraging
from experiments.__main__ import main
from lit_models import ImageClassifier

rank = int(os.environ.get("LOCAL_RANK", 0))
evaluated = []


def note(self, trainer, *_):
    """The buffers of the network that is evaluated, and those of the one that is trained."""
    (average,) = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    modules = (trainer.lightning_module.net, average._average_model.module.net)
    evaluated.extend({name: buffer.clone() for name, buffer in module.named_buffers()} for module in modules)


def save(self, trainer, *_):
    torch.save(evaluated, Path(trainer.default_root_dir) / f"evaluated{rank}.pt")


def fail(module, batch, batch_idx):
    raise OSError(f"rank {rank} can't read its images")


def nan(module, batch, batch_idx):
    return sum(parameter.sum() for parameter in module.parameters()) * torch.nan


if os.environ.get("NAN") == str(rank):
    ImageClassifier.training_step = nan
if os.environ.get("FAIL") == str(rank):
    ImageClassifier.training_step = fail
RunSummary.on_validation_batch_start = note
RunSummary.on_fit_end = save
sys.exit(main())
