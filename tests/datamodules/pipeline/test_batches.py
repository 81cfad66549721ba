from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch

from datamodules.pipeline.batches import Loader, evaluation_tickets, training_steps, training_tickets

INDICES = torch.arange(0, 2000, 2)


@pytest.mark.parametrize(("size", "batch_size"), [(1000, 128), (1000, 100), (129, 128), (5, 8), (1000, 333)])
def test_an_epoch_holds_every_image_once_in_batches_of_nearly_one_size(size, batch_size):
    tickets = list(training_tickets(INDICES[:size], batch_size, seed=1, epoch=2))
    assert len(tickets) == training_steps(size, batch_size)
    lengths = [len(ticket.indices) for ticket in tickets]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= batch_size
    assert torch.equal(torch.cat([ticket.indices for ticket in tickets]).sort().values, INDICES[:size])


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([t.indices for t in training_tickets(INDICES, 100, seed, epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    assert order(0, 0) != INDICES.tolist()


@pytest.mark.parametrize("offset", torch.randperm(32, generator=torch.Generator().manual_seed(0))[:20].tolist())
def test_an_epoch_goes_on_from_any_batch(offset):
    whole = list(training_tickets(INDICES, 32, seed=3, epoch=4))
    rest = list(training_tickets(INDICES, 32, seed=3, epoch=4, offset=offset))
    assert len(rest) == len(whole) - offset == 32 - offset
    for ticket, expected in zip(rest, whole[offset:], strict=True):
        assert ticket.number == expected.number
        assert torch.equal(ticket.indices, expected.indices)


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("size", [1000, 997, 13])
def test_ranks_see_in_each_step_what_one_process_sees(world_size, size):
    indices = INDICES[:size]
    alone = list(training_tickets(indices, 12 * world_size, seed=0, epoch=0))
    ranks = [list(training_tickets(indices, 12, 0, 0, 0, rank, world_size)) for rank in range(world_size)]
    assert [len(tickets) for tickets in ranks] == [len(alone)] * world_size
    for step, ticket in enumerate(alone):
        assert torch.equal(torch.cat([tickets[step].indices for tickets in ranks]), ticket.indices)
        assert all(len(tickets[step].indices) for tickets in ranks)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [100, 101, 5])
def test_evaluation_counts_every_image_once(world_size, size):
    parts = [evaluation_tickets(INDICES[:size], 8, rank, world_size) for rank in range(world_size)]
    served = [index for tickets in parts for ticket in tickets for index in ticket.indices.tolist()]
    assert sorted(served) == INDICES[:size].tolist()
    assert all(0 < len(ticket.indices) <= 8 for tickets in parts for ticket in tickets)


def test_workers_leave_a_signal_to_their_parent():
    """A SIGTERM to all processes of a job must not cost the parent the batches of the step it still takes."""
    loader = Loader(lambda: iter(range(8)), lambda ticket: ticket, 8, num_workers=2)
    batches = iter(loader)
    first = [next(batches), next(batches)]  # one of each: both have begun
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGTERM)
    assert [*first, *batches] == list(range(8))
