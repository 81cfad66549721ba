"""Signals that ask a run to leave, noted for the next moment at which it can."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

LEAVE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""What schedulers send before they take a machine away, and Ctrl-C."""


class NotedSignals:
    """Notes a signal instead of following it. A second one of the same kind does what it did before."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._listening = False

    def listen(self) -> None:
        """Handle the signals from here on; a second call takes them back from whoever handled them in between."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread handle signals
        self._listening = True
        for signum in LEAVE:
            handler = signal.signal(signum, self._note)
            self._before.setdefault(signum, handler)

    def stop(self) -> None:
        """Handle them no more."""
        self._listening = False
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, signum: int, frame: FrameType | None) -> None:
        before = self._before.get(signum, signal.SIG_DFL)
        signal.signal(signum, before)
        if self._listening:
            self.received = signal.Signals(signum)
        else:  # put back by someone who had found this handler
            os.kill(os.getpid(), signum)
