"""The private names of torch and Lightning that data loading needs; seen with torch 2.14 and Lightning 2.6."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from datamodules.pipeline.allocator import keep_freed_memory

__all__ = ["OwnedWorkers", "pin_memory", "shift_restored_batches"]

SEEN_WITH = {"torch": "2.14.1", "lightning": "2.6.6"}
OVERRIDDEN = {"OwnedWorkers": {"_get_iterator", "_iterator"}}
"""Classes of this room, and what they share with a base class of another package."""

# What a scheduler or a terminal sends to all processes of a job. The main process answers it, and needs its workers
# until the step it is in has ended.
_OF_THE_JOB = {getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)}
_PATIENCE = 2.0
SECONDS_BETWEEN_LOOKS = 5.0
MOST_LOOKS = 120
"""After which a batch that is waited for will not come. They are counted, as a clock would also count the time in which
the whole job was stopped."""
LOOKS_IN_A_HURRY = 4
"""For a process that was asked to leave: a scheduler waits half a minute or so before it kills."""

_running: set[Any] = set()


class OwnedWorkers(DataLoader[Any]):
    """A ``DataLoader`` whose worker processes leave signals to their parent, and end when it says so.

    torch ends workers with SIGTERM and waits up to ten seconds for each; multiprocessing does so at exit, and waits
    without a limit. Both would wait for ever for a worker that is stopped, or ignores SIGTERM. Workers hold nothing
    that must be saved, so :meth:`end_workers` kills them, and so does the end of the process. Nor has torch a limit
    for a batch of a worker that is stopped or hangs: it may wait in the middle of one, for the memory that holds it.
    """

    _awaited: object | None = None
    """Another one for each batch that is waited for."""
    _give_up: Callable[[], Any] | None = None

    def __init__(self, dataset: Any, **options: Any) -> None:
        super().__init__(dataset, **{**options, "worker_init_fn": _begin})

    def batches(self) -> Iterator[Any]:
        """The batches of one pass.

        Raises:
            ChildProcessError: a worker died, most often because the system ran out of memory.
            TimeoutError: the next batch has not come for ten minutes.
            BaseException: after :meth:`hurry`, instead of both, what its argument raises.
        """
        batches: Iterator[Any] | None = None
        try:
            while True:
                self._awaited = object()
                try:
                    if batches is None:
                        batches = iter(self)  # which waits for workers of the pass before, to begin anew
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    self._awaited = None
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            # What a worker has sent can't be opened once it is gone; that shows before its end does.
            if not isinstance(error, ConnectionError | EOFError) and not self._a_worker_died():
                raise
            gave_up = getattr(self.__dict__.get("_owned"), "_gave_up", False)
            self.end_workers()
            if self._give_up is not None:
                self._give_up()
            if gave_up:
                raise TimeoutError(
                    f"the data workers have sent no batch for {MOST_LOOKS * SECONDS_BETWEEN_LOOKS:g} s: one is stopped,"
                    " or waits for its files; go on with `fathom resume` and the run's directory"
                ) from None
            # Without the traceback of the queue that torch was waiting at.
            raise ChildProcessError(
                f"a data worker died; the system kills one when memory runs out: lower data.num_workers"
                f" (now {self.num_workers}) or data.batch_size, then go on with `fathom resume` and the run's directory"
            ) from None

    def _a_worker_died(self) -> bool:
        iterator = self.__dict__.get("_owned")
        return iterator is not None and not all(worker.is_alive() for worker in iterator._workers)

    def hurry(self, give_up: Callable[[], Any]) -> None:
        """From now on wait 20 seconds for a batch at most, and call ``give_up``, which raises, if none comes."""
        self._give_up = give_up

    def end_workers(self) -> None:
        """Kill the worker processes, if there are any."""
        if (iterator := self.__dict__.pop("_owned", None)) is not None:
            _end(iterator)
        self._iterator = None

    def _get_iterator(self) -> Any:
        self.end_workers()
        with _signals_blocked():
            iterator: Any = super()._get_iterator()
        if self.num_workers:
            # Unwatched, a death would raise wherever the main process happens to be, instead of at the next batch.
            _remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
            self._owned = iterator
            iterator._made_in = os.getpid()
            iterator._gave_up = False
            _running.add(iterator)
            Thread(target=_watch, args=(self, iterator), daemon=True).start()
            # The last to be registered is the first to be called: before torch and multiprocessing end workers.
            atexit.unregister(_end_all)
            atexit.register(_end_all)
        return iterator


def _watch(loader: OwnedWorkers, iterator: Any) -> None:
    """In a thread: kill workers that send nothing. Whoever waits for them is told that they are gone."""
    awaited: object | None = None
    looks = 0
    while iterator in _running:
        looks = looks + 1 if loader._awaited is awaited is not None else 0
        awaited = loader._awaited
        if looks >= (MOST_LOOKS if loader._give_up is None else LOOKS_IN_A_HURRY):
            iterator._gave_up = True
            for worker in iterator._workers:
                worker.kill()
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _begin(worker: int) -> None:
    """In a worker process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_JOB)
    keep_freed_memory()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that start here never get the signals, not even before :func:`_begin`; this one gets them after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_JOB)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(iterator: Any) -> None:
    _running.discard(iterator)
    if iterator._made_in != os.getpid():  # a fork has a copy of it, and leaves its siblings alone
        return
    if hasattr(iterator, "_pin_memory_thread") and not iterator._shutdown:
        iterator._pin_memory_thread_done_event.set()
        with suppress(RuntimeError):  # at exit no thread can be started to put it there
            iterator._worker_result_queue.put((None, None))
        iterator._pin_memory_thread.join(_PATIENCE)
    iterator._shutdown = True  # nothing is left to do for torch
    for worker in iterator._workers:
        worker.kill()
    for worker in iterator._workers:
        worker.join(_PATIENCE)
    for queue in (*iterator._index_queues, iterator._worker_result_queue):
        queue.cancel_join_thread()
        queue.close()


def _end_all() -> None:
    for iterator in list(_running):
        _end(iterator)


def shift_restored_batches(trainer: Trainer, by: int) -> None:
    """Add ``by`` to the batches of the unfinished epoch in the checkpoint that Lightning is restoring."""
    checkpoint = trainer._checkpoint_connector._loaded_checkpoint
    current = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    for stage in current:
        current[stage] += by
