"""Signals that ask a run to leave, noted for the next moment at which it can."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

# What schedulers send before they take a machine away, and Ctrl-C.
_BY_DEFAULT: dict[str, Any] = {
    "SIGTERM": signal.SIG_DFL,
    "SIGUSR1": signal.SIG_DFL,
    "SIGINT": signal.default_int_handler,
}


class NotedSignals:
    """Notes SIGTERM, SIGUSR1 and SIGINT instead of following them. A second one of a kind is followed."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Handle the signals from here on."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread handle signals
        self.received = None
        for name in _BY_DEFAULT:
            if hasattr(signal, name):
                number = signal.Signals[name]
                self._before[number] = signal.signal(number, self._note)

    def stop(self) -> None:
        """Leave them to who handled them before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, _BY_DEFAULT[self.received.name])
