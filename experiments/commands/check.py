"""Check this machine: parity with the CPU, every recipe, resumption, throughput."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Literal

import torch

from experiments.bench.timing import silence
from experiments.check.answers import Question, Setting, ask
from experiments.check.parity import parity
from experiments.check.precisions import precisions
from experiments.check.properties import properties
from experiments.check.recipes import recipes
from experiments.check.resumption import resumption
from experiments.check.surroundings import surroundings
from experiments.check.throughput import side_by_side, throughput
from experiments.errors import UsageError

QUESTIONS: dict[str, Question] = {
    "surroundings": surroundings,
    "parity": parity,
    "recipes": recipes,
    "precisions": precisions,
    "resumption": resumption,
    "properties": properties,
    "throughput": throughput,
    "side by side": side_by_side,
}


def check(
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    quick: bool = False,
    only: tuple[str, ...] = (),
    out: Path = Path("check.json"),
) -> None:
    """Ask everything, print a table, write a JSON file, and fail if an answer is wrong.

    Logits and gradients beside the CPU's, steps of every recipe, learning in half precision, a killed run, overflow,
    merge, lesions and paths, images per second. Neither data, the network nor W&B is needed. On a CPU the questions
    that need a GPU say so.

    Args:
        accelerator: what to ask: the GPU if there is one, the CPU, or the first GPU.
        quick: at sizes that take half a minute on a CPU; the times then say nothing.
        only: some of the questions, such as [parity,recipes].
        out: file that gets every number.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("there is no GPU that torch can use here: take --accelerator cpu")
    if unknown := set(only) - set(QUESTIONS):
        raise UsageError(f"there is no question {min(unknown)!r}: take some of {', '.join(QUESTIONS)}")
    silence()
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    asked = {name: question for name, question in QUESTIONS.items() if not only or name in only}
    about = {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "quick": quick}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(torch.device("cuda", 0) if on_gpu else torch.device("cpu"), quick, Path(folder))
        failed = ask(asked, setting, out, about)
    print(f"every number is in {out}")
    if failed:
        raise UsageError(f"{len(failed)} answers are wrong ({'; '.join(failed)}): see {out}")
