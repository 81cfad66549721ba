"""Which images are in which batch, and the loader that serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.pipeline.internals import OwnedWorkers, pin_memory
from datamodules.pipeline.mixing import Mixing
from datamodules.pipeline.randomness import Stream, generator


class BatchIndices(NamedTuple):
    """Which images make up a batch, before they are read."""

    indices: Tensor
    """Positions in the data set, int64 (N,)."""
    epoch: int | None
    """The epoch that the random draws depend on; ``None`` in evaluation, which draws nothing."""
    number: int
    """Position of the batch in its epoch."""
    draws: Tensor | None = None
    """float32 (N, D) in [0, 1), the random numbers of each image, where they have been drawn for the whole epoch."""
    mixing: Mixing | None = None
    """How the batch is mixed, where that has been drawn for the whole epoch."""


def training_batches(
    indices: Tensor,
    batch_size: int,
    seed: int,
    epoch: int,
    images_done: int = 0,
    rank: int = 0,
    world_size: int = 1,
    equal: bool = False,
) -> Iterator[BatchIndices]:
    """The batches of one epoch for one rank, after the first ``images_done`` images of all ranks.

    The order of the images is a function of (seed, epoch). What is left of it is cut into ``training_steps`` global
    batches whose sizes differ by at most one, and each of these into one part per rank in the same way. So every image
    is in exactly one batch, and n ranks with batches of b see in each step what one process with batches of n·b sees.
    An epoch that is continued with another batch size or number of ranks goes on at the same image.

    Args:
        indices: positions of the training images, int64 (N,).
        batch_size: images in a batch of one rank.
        seed: of the order.
        epoch: of the order, and of the random draws.
        images_done: images that have been trained on in this epoch.
        rank: of this process.
        world_size: number of ranks.
        equal: leave out the last images of the order, so that every batch has exactly ``batch_size``.
    """
    order = indices[torch.from_numpy(generator(Stream.ORDER, seed, epoch).permutation(len(indices)))]
    rest = order[images_done:]
    steps = training_steps(len(rest), batch_size, world_size, equal)
    if not len(rest) or not steps:
        return
    first = training_steps(len(order), batch_size, world_size, equal) - steps
    if equal:
        rest = rest[: steps * batch_size * world_size]
    for number, step in enumerate(rest.tensor_split(steps), start=first):
        yield BatchIndices(step.tensor_split(world_size)[rank], epoch, number)


def training_steps(size: int, batch_size: int, world_size: int = 1, equal: bool = False) -> int:
    """Number of batches in an epoch of ``size`` images, the same on all ranks; with ``equal``, of whole batches alone.

    Batch normalisation needs two images, so no rank gets a batch of one unless ``batch_size`` is 1 or there are too few
    images: some batches have one image more than ``batch_size`` instead.
    """
    if equal:
        return size // (batch_size * world_size)
    steps = -(-size // (batch_size * world_size))
    return steps if batch_size == 1 else min(steps, max(size // (2 * world_size), 1))


def evaluation_batches(indices: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> list[BatchIndices]:
    """Every ``world_size``-th image from ``rank`` on: over all ranks each image exactly once, none added.

    A rank may have one batch fewer than another. One without an image has an empty batch: without any, Lightning would
    skip the evaluation on this rank, and the others would wait for its share.
    """
    return [BatchIndices(part, None, n) for n, part in enumerate(indices[rank::world_size].split(batch_size))]


class _Fetched(Dataset[Any]):
    def __init__(self, fetch: Callable[[BatchIndices], Any]) -> None:
        self.fetch = fetch

    def __getitem__(self, batch: BatchIndices) -> Any:
        return self.fetch(batch)


class Loader:
    """Batches in order, made here (``num_workers=0``) or by worker processes ahead of time.

    It is no ``DataLoader``, so Lightning puts no sampler of its own into it.

    Args:
        batches: called when the first batch is asked for, no earlier: Lightning starts an iterator before it has
            restored the position to resume from.
        fetch: makes a batch from its indices, maybe in a worker process.
        length: number of batches in a whole epoch.
        num_workers: worker processes.
        pin: put batches into pinned memory.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[BatchIndices]],
        fetch: Callable[[BatchIndices], Any],
        length: int,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        self._workers: OwnedWorkers | None = None
        self._batches, self._fetch, self._length = batches, fetch, length
        self._pin_memory = pin
        if num_workers:
            self._workers = OwnedWorkers(
                _Fetched(fetch),
                sampler=_Lazy(batches),
                batch_size=None,
                num_workers=num_workers,
                persistent_workers=True,
                pin_memory=pin,
                generator=torch.Generator(),  # it draws seeds for workers, from the global one otherwise
            )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if self._workers is not None:
            yield from self._workers.batches()
            return
        for indices in self._batches():
            batch = self._fetch(indices)
            # Only from pinned memory does a copy to the device run beside what the device computes.
            yield pin_memory(batch) if self._pin_memory else batch

    def hurry(self, give_up: Callable[[], Any]) -> None:
        """See :meth:`~datamodules.pipeline.internals.OwnedWorkers.hurry`."""
        if self._workers is not None:
            self._workers.hurry(give_up)

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        if self._workers is not None:
            self._workers.end_workers()

    def __del__(self) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position is the DataModule's. Lightning warns if there is no such method."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


class _Lazy:
    def __init__(self, batches: Callable[[], Iterable[BatchIndices]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[BatchIndices]:
        return iter(self.batches())
