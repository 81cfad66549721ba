"""Which images are in which batch, and the loader that serves them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.pipeline.randomness import Stream, generator


class Ticket(NamedTuple):
    """A batch before it is made."""

    indices: Tensor
    """Positions in the data set, int64 (N,)."""
    epoch: int | None
    """The epoch that names the random draws; ``None`` for evaluation, which draws nothing."""
    number: int
    """Position of the batch in its epoch."""


def training_tickets(
    indices: Tensor,
    batch_size: int,
    seed: int,
    epoch: int,
    offset: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Ticket]:
    """The batches of one epoch for one rank, from the one numbered ``offset`` on.

    The order is a function of (seed, epoch). The epoch is cut into ``training_steps`` global batches whose
    sizes differ by at most one, and each of them into one part per rank likewise: every image is in exactly
    one batch, none is too small for batch normalisation, and n ranks with batches of b see in each step
    what one process with batches of n·b sees.
    """
    order = indices[torch.from_numpy(generator(Stream.ORDER, seed, epoch).permutation(len(indices)))]
    steps = training_steps(len(indices), batch_size, world_size)
    for number, step in enumerate(order.tensor_split(steps)[offset:], start=offset):
        yield Ticket(step.tensor_split(world_size)[rank], epoch, number)


def training_steps(size: int, batch_size: int, world_size: int = 1) -> int:
    """Batches in an epoch of ``size`` images, the same for every rank."""
    return -(-size // (batch_size * world_size))


def evaluation_tickets(indices: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Ticket]:
    """Every ``world_size``-th image from ``rank`` on: over all ranks each image exactly once, none added.

    A rank may have one batch fewer than another, or none.
    """
    mine = indices[rank::world_size]
    return [Ticket(part, None, n) for n, part in enumerate(mine.split(batch_size))] if len(mine) else []


class _Fetched(Dataset[Any]):
    def __init__(self, fetch: Callable[[Ticket], Any]) -> None:
        self.fetch = fetch

    def __getitem__(self, ticket: Ticket) -> Any:
        return self.fetch(ticket)


def leave_signals_to_parent(worker: int) -> None:
    """For worker processes: a SIGTERM to all processes of a job is their parent's to follow, which still needs them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Loader:
    """Batches in order, made here (``num_workers=0``) or by worker processes ahead of time.

    ``tickets`` is called when the first batch is asked for, no earlier: Lightning starts an iterator before
    it has restored the position to resume from. It is no ``DataLoader``, so Lightning puts no sampler of
    its own into it.
    """

    def __init__(
        self,
        tickets: Callable[[], Iterable[Ticket]],
        fetch: Callable[[Ticket], Any],
        length: int,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        self._length = length
        self._batches: DataLoader[Any] = DataLoader(
            _Fetched(fetch),
            sampler=_Lazy(tickets),
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=leave_signals_to_parent,
            # Only from pinned memory does a copy to the device run beside what the device computes.
            pin_memory=pin,
            generator=torch.Generator(),  # it draws seeds for workers, from the global one otherwise
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        yield from self._batches

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is the DataModule's. Lightning warns without this."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class _Lazy:
    def __init__(self, tickets: Callable[[], Iterable[Ticket]]) -> None:
        self.tickets = tickets

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self.tickets())
