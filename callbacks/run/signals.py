"""Signals that ask a run to leave: noted while there is something to save first, followed where there is nothing."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: what was asked for is not done, and can be gone on with."""

# What schedulers send before they take a machine away, Ctrl-C, and what a terminal sends when it is closed.
_BY_DEFAULT: dict[str, Any] = {
    "SIGTERM": signal.SIG_DFL,
    "SIGUSR1": signal.SIG_DFL,
    "SIGINT": signal.default_int_handler,
    "SIGHUP": signal.SIG_DFL,
}


class LeftEarly(SystemExit):
    """Ends a run that a signal asked to leave; with :data:`EXIT_CODE`."""


class NotedSignals:
    """Notes SIGTERM, SIGUSR1, SIGINT and SIGHUP instead of following them. A second one of a kind is followed.

    Those that are ignored, as SIGHUP under ``nohup``, stay so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Handle the signals from here on."""
        self.received = None
        self._before = _handled_by(self._note)

    def stop(self) -> None:
        """Leave them to who handled them before."""
        _handled_again(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, _BY_DEFAULT[self.received.name])


@contextmanager
def leaving_at_once(hint: Callable[[], str]) -> Iterator[None]:
    """The same signals end the process with :data:`EXIT_CODE`, and a sentence that ends in ``hint``."""

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        signal.signal(number, _BY_DEFAULT[name])
        say(f"Left after {name}{hint()}")
        raise LeftEarly(EXIT_CODE)

    before = _handled_by(leave)
    try:
        yield
    finally:
        _handled_again(before)


def say(sentence: str) -> None:
    """On stderr, which may have gone with its terminal."""
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _handled_by(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Who handled them before. Python lets no thread but the main one handle signals."""
    before: dict[signal.Signals, Any] = {}
    for name in _BY_DEFAULT if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)  # Windows has not all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _handled_again(before: dict[signal.Signals, Any]) -> None:
    while before:
        signal.signal(*before.popitem())
