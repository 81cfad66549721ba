"""Signals that ask a run to leave: deferred in training until a checkpoint is written, obeyed at once otherwise."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the run is not finished, and can be resumed."""

# What schedulers send before they take a machine away, Ctrl-C, and what a terminal sends when it is closed.
_BY_DEFAULT: dict[str, Any] = {
    "SIGTERM": signal.SIG_DFL,
    "SIGUSR1": signal.SIG_DFL,
    "SIGINT": signal.default_int_handler,
    "SIGHUP": signal.SIG_DFL,
}


class LeftEarly(SystemExit):
    """Ends a run after a signal, with :data:`EXIT_CODE`."""


class NotedSignals:
    """Records SIGTERM, SIGUSR1, SIGINT and SIGHUP instead of obeying them. The second one of a kind is obeyed.

    Signals that are ignored, as SIGHUP under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Handle the signals from here on."""
        self.received = None
        self._before = _set_handlers(self._note)

    def stop(self) -> None:
        """Restore the previous handlers."""
        _restore_handlers(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, _BY_DEFAULT[self.received.name])


@contextmanager
def leaving_at_once(hint: Callable[[], str]) -> Iterator[None]:
    """Within the block these signals end the process with :data:`EXIT_CODE`, and a sentence that ends in ``hint``."""

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        signal.signal(number, _BY_DEFAULT[name])
        print_to_stderr(f"Left after {name}{hint()}")
        raise LeftEarly(EXIT_CODE)

    before = _set_handlers(leave)
    try:
        yield
    finally:
        _restore_handlers(before)


def print_to_stderr(sentence: str) -> None:
    """Print a line, unless stderr is gone with its terminal."""
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Handle the signals by ``handler``, and return the previous handlers. Only the main thread may handle signals."""
    before: dict[signal.Signals, Any] = {}
    for name in _BY_DEFAULT if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)  # Windows has not all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _restore_handlers(before: dict[signal.Signals, Any]) -> None:
    while before:
        signal.signal(*before.popitem())
