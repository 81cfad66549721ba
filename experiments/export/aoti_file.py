"""model.aoti.pt2, compiled ahead of time into machine code for this processor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from experiments.errors import UsageError
from experiments.export.subject import Subject
from experiments.internals import compile_ahead, load_compiled

FILE = "model.aoti.pt2"


def check_compiler() -> None:
    """Raises ``UsageError`` where there is no C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UsageError(
            f"--to aoti needs a C++ compiler, and there is no {compiler}: install one (apt install g++) or name yours"
            " in CXX"
        )


def write(subject: Subject, folder: Path, program: ExportedProgram) -> None:
    """Compile ``program``."""
    compile_ahead(program, folder / FILE)


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """The network as compiled."""
    compiled = load_compiled(folder / FILE)
    # The code goes by strides without looking, and those of a single channel may be anything in a contiguous tensor.
    return lambda images: compiled(images.clone(memory_format=torch.contiguous_format))
