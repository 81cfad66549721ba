"""One process at a time trains in a run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from experiments.errors import UsageError
from experiments.runs.directory import open_no_link


@contextmanager
def run_lock(run_directory: Path) -> Iterator[None]:
    """Hold ``.lock`` in ``run_directory``, for the first process of several.

    The system drops the lock of a process that dies, so there is no stale one; the file says who holds it.

    Raises:
        UsageError: if another process holds it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    run_directory.mkdir(parents=True, exist_ok=True)
    descriptor = open_no_link(run_directory / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        _acquire(descriptor, run_directory)
        yield
    finally:
        os.close(descriptor)  # the lock goes with it


def _acquire(descriptor: int, run_directory: Path) -> None:
    try:
        # Not flock: worker processes would inherit it, and may outlive this one.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return  # a file system without locks
        holder = os.read(descriptor, 500).decode(errors="replace")
        raise UsageError(f"{run_directory} is being trained by a live process: {holder}") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
