"""Questions, their answers, and the table and the file that hold them."""

from __future__ import annotations

import io
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from lit_models.files import atomic


class Setting(NamedTuple):
    """Where the questions are asked."""

    device: torch.device
    quick: bool
    """Sizes so small that a CPU answers in seconds; what is then measured says nothing."""
    folder: Path
    """An empty folder."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"


class Answer(NamedTuple):
    """A row of the table."""

    about: str
    answer: str
    passed: bool | None = None
    """``None`` where nothing is required, or the question does not apply."""
    numbers: dict[str, Any] = {}  # noqa: RUF012  # never changed
    """What was measured, for the file."""


Question = Callable[[Setting], Iterator[Answer]]


def not_applicable(about: str, reason: str) -> Answer:
    """The answer to a question that has none here."""
    return Answer(about, f"not applicable: {reason}")


def ask(questions: dict[str, Question], setting: Setting, out: Path, about: dict[str, Any]) -> list[str]:
    """Ask each question, write what is known to ``out`` after each, and print the table at the end.

    Returns:
        What failed. An exception is a failed answer, and the next question is asked all the same.
    """
    found: list[dict[str, Any]] = []
    for name, question in questions.items():
        start = time.monotonic()
        for answer in _answers(question, setting):
            now = time.monotonic()
            found.append({"question": name, **answer._asdict(), "seconds": round(now - start, 2)})
            start = now
            _write(out, about, found)
    Console(width=140).print(_table(found))
    return [f"{row['question']}, {row['about']}" for row in found if row["passed"] is False]


def _answers(question: Question, setting: Setting) -> Iterator[Answer]:
    answers = question(setting)
    while True:
        with redirect_stdout(io.StringIO()):  # what runs within print
            try:
                answer = next(answers)
            except StopIteration:
                return
            except Exception as error:
                answer = Answer(
                    "error", f"{type(error).__name__}: {error}", False, {"traceback": traceback.format_exc()}
                )
                answers = iter(())
        yield answer


def _write(out: Path, about: dict[str, Any], found: list[dict[str, Any]]) -> None:
    with atomic(out) as file:
        file.write(json.dumps({**about, "answers": found}, indent=2, default=str) + "\n")


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table()
    for column in ("question", "about", "answer", "", "s"):
        table.add_column(column, justify="right" if column == "s" else "left")
    marks = {True: "passed", False: "FAILED", None: ""}
    before = None
    for row in found:
        question = row["question"] if row["question"] != before else ""
        before = row["question"]
        table.add_row(question, row["about"], row["answer"], marks[row["passed"]], f"{row['seconds']:.1f}")
    return table
