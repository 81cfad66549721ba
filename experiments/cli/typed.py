"""The command as it was typed, which a run keeps beside its configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_words: ContextVar[Sequence[str]] = ContextVar("words", default=())


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """``words`` are what follows ``fathom``, within the block."""
    before = _words.set(words)
    try:
        yield
    finally:
        _words.reset(before)


def typed_command() -> str | None:
    """The command, quoted for a shell, without passwords in addresses; ``None`` where Python code has begun the run."""
    words = [re.sub(r"(://[^/@:]*):[^/@]*@", r"\1@", word) for word in _words.get()]
    return shlex.join(["fathom", *words]) if words else None
