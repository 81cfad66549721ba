"""model.pt2, for torch.export.load and what is built on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from experiments.export.subject import Subject

FILE = "model.pt2"


def write(subject: Subject, folder: Path, program: ExportedProgram) -> None:
    """Write ``program``, with ``preprocess.json`` inside."""
    description = json.dumps(subject.description, ensure_ascii=False)
    torch.export.save(program, folder / FILE, extra_files={"preprocess.json": description})


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """The network in PyTorch."""
    return torch.export.load(folder / FILE).module()
