"""Signals that ask a run to leave: deferred in training until a checkpoint is written, obeyed at once otherwise.

A launcher and a scheduler may each send the same signal. Those that come within :data:`ONE_REQUEST` seconds of the
first one of their kind count as one with it; a later one ends the process at once. So does the third Ctrl-C, however
fast they follow each other.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the run is not finished, and can be resumed."""

_HANDLED = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
"""What schedulers send before they take a machine away, Ctrl-C, and what a terminal sends when it is closed."""


ONE_REQUEST = 10.0
"""Seconds in which repeated signals of a kind count as one."""


class LeftEarly(SystemExit):
    """Ends a run after a signal, with :data:`EXIT_CODE`."""


class _Received:
    """When the first signal of each kind came, and how many have come: they are sent to the process as a whole."""

    def __init__(self) -> None:
        self.leaving = False
        self._first: dict[signal.Signals, float] = {}
        self._count: dict[signal.Signals, int] = {}

    def is_new(self, kind: signal.Signals) -> bool:
        """Note a signal, and end the process if it asks for that.

        Returns:
            Whether it is the first of its kind.
        """
        now = time.monotonic()
        first = self._first.setdefault(kind, now)
        self._count[kind] = self._count.get(kind, 0) + 1
        if now - first > ONE_REQUEST or (kind == signal.SIGINT and self._count[kind] == 3):
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(kind)
        return self._count[kind] == 1


_received = _Received()


def leave_early(exit_code: int = EXIT_CODE) -> NoReturn:
    """End the run with ``exit_code``, whatever other signals ask for the same."""
    _received.leaving = True
    raise LeftEarly(exit_code)


class NotedSignals:
    """Records SIGTERM, SIGUSR1, SIGINT and SIGHUP instead of obeying them.

    Signals that are ignored, as SIGHUP under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self, on_first: Callable[[], None]) -> None:
        """Handle the signals from here on; the first of a kind also calls ``on_first``."""
        self.received = None
        self._on_first = on_first
        self._before = _set_handlers(self._note)

    def stop(self) -> None:
        """Restore the previous handlers."""
        _restore_handlers(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if _received.is_new(kind := signal.Signals(number)):
            self.received = kind
            self._on_first()


@contextmanager
def leaving_at_once(hint: Callable[[], str]) -> Iterator[None]:
    """Within the block these signals end the process with :data:`EXIT_CODE`, and a sentence that ends in ``hint``.

    They stay handled in a process that ends for one of them, until it has ended.
    """
    global _received
    _received = _Received()

    def leave(number: int, frame: FrameType | None) -> None:
        if _received.is_new(kind := signal.Signals(number)) and not _received.leaving:
            print_to_stderr(f"Left after {kind.name}{hint()}")
            leave_early()

    before = _set_handlers(leave)
    try:
        yield
    except LeftEarly:
        # Python takes its handlers away in the last moments of a process, after its children have ended.
        Finalize(None, _ignore, [list(before)], exitpriority=-1000)
        before.clear()
        raise
    finally:
        _restore_handlers(before)


def _ignore(kinds: Iterable[signal.Signals]) -> None:
    for kind in kinds:
        signal.signal(kind, signal.SIG_IGN)


def print_to_stderr(sentence: str) -> None:
    """Print a line, unless stderr is gone with its terminal."""
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Handle the signals by ``handler``, and return the previous handlers. Only the main thread may handle signals."""
    before: dict[signal.Signals, Any] = {}
    for name in _HANDLED if threading.current_thread() is threading.main_thread() else ():
        number = getattr(signal, name, None)  # Windows has not all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def _restore_handlers(before: dict[signal.Signals, Any]) -> None:
    while before:
        signal.signal(*before.popitem())
