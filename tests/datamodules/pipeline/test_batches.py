from __future__ import annotations

import pytest
import torch

from datamodules.pipeline.batches import evaluation_batches, training_batches, training_steps

INDICES = torch.arange(0, 2000, 2)


@pytest.mark.parametrize(("size", "batch_size"), [(1000, 128), (1000, 100), (129, 128), (5, 8), (1000, 333)])
def test_an_epoch_holds_every_image_once_in_batches_of_nearly_one_size(size, batch_size):
    batches = list(training_batches(INDICES[:size], batch_size, seed=1, epoch=2))
    assert len(batches) == training_steps(size, batch_size)
    lengths = [len(batch.indices) for batch in batches]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= batch_size
    assert torch.equal(torch.cat([batch.indices for batch in batches]).sort().values, INDICES[:size])


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([t.indices for t in training_batches(INDICES, 100, seed, epoch)]).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    assert order(0, 0) != INDICES.tolist()


@pytest.mark.parametrize("offset", torch.randperm(32, generator=torch.Generator().manual_seed(0))[:20].tolist())
def test_an_epoch_goes_on_from_any_batch(offset):
    whole = list(training_batches(INDICES, 32, seed=3, epoch=4))
    done = sum(len(batch.indices) for batch in whole[:offset])
    rest = list(training_batches(INDICES, 32, seed=3, epoch=4, images_done=done))
    assert len(rest) == len(whole) - offset == 32 - offset
    for batch, expected in zip(rest, whole[offset:], strict=True):
        assert batch.number == expected.number
        assert torch.equal(batch.indices, expected.indices)


@pytest.mark.parametrize(
    ("before", "after"), [((32, 1), (50, 1)), ((50, 1), (32, 1)), ((32, 2), (32, 1)), ((7, 1), (7, 3))]
)
@pytest.mark.parametrize("batches_done", [1, 5, 13])
def test_an_epoch_goes_on_at_the_same_image_with_other_batches(before, after, batches_done):
    def epoch(shape, images_done=0):
        size, ranks = shape
        parts = [list(training_batches(INDICES, size, 3, 4, images_done, rank, ranks)) for rank in range(ranks)]
        return [(step[0].number, torch.cat([batch.indices for batch in step])) for step in zip(*parts, strict=True)]

    order = torch.cat([indices for _, indices in epoch(before)])
    done = sum(len(indices) for _, indices in epoch(before)[:batches_done])
    rest = epoch(after, done)
    assert torch.equal(torch.cat([indices for _, indices in rest]), order[done:])
    assert [number for number, _ in rest] == list(range(len(epoch(after))))[-len(rest) :]
    for number, (_, indices) in enumerate(rest):  # and is cut as before when it goes on once more
        again = epoch(after, done + sum(len(indices) for _, indices in rest[:number]))
        assert again[0][0] == rest[number][0]
        assert torch.equal(again[0][1], indices)


@pytest.mark.parametrize(
    ("size", "batch_size", "world_size"), [(25, 2, 1), (25, 24, 1), (9, 4, 2), (13, 3, 2), (7, 3, 2)]
)
def test_no_rank_gets_a_batch_of_one_image(size, batch_size, world_size):
    parts = [
        list(training_batches(INDICES[:size], batch_size, 0, 0, 0, rank, world_size)) for rank in range(world_size)
    ]
    lengths = [len(batch.indices) for batches in parts for batch in batches]
    assert sum(lengths) == size
    assert 2 <= min(lengths) <= max(lengths) <= batch_size + 1
    assert [len(batches) for batches in parts] == [training_steps(size, batch_size, world_size)] * world_size


@pytest.mark.parametrize(("size", "batch_size", "lengths"), [(1, 8, [1]), (3, 1, [1, 1, 1])])
def test_a_batch_of_one_image_that_is_asked_for(size, batch_size, lengths):
    batches = training_batches(INDICES[:size], batch_size, 0, 0)
    assert [len(batch.indices) for batch in batches] == lengths


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("size", [1000, 997, 13])
def test_ranks_see_in_each_step_what_one_process_sees(world_size, size):
    indices = INDICES[:size]
    alone = list(training_batches(indices, 12 * world_size, seed=0, epoch=0))
    ranks = [list(training_batches(indices, 12, 0, 0, 0, rank, world_size)) for rank in range(world_size)]
    assert [len(batches) for batches in ranks] == [len(alone)] * world_size
    for step, batch in enumerate(alone):
        assert torch.equal(torch.cat([batches[step].indices for batches in ranks]), batch.indices)
        assert all(len(batches[step].indices) for batches in ranks)


@pytest.mark.parametrize("images_done", [0, 24, 120, 997])
@pytest.mark.parametrize("ranks", [1, 2])
def test_equal_batches_leave_out_the_end_of_the_order(images_done, ranks):
    indices = INDICES[:997]
    size = 12 // ranks
    parts = [list(training_batches(indices, size, 3, 4, images_done, rank, ranks, True)) for rank in range(ranks)]
    order = torch.cat([batch.indices for batch in training_batches(indices, 997, 3, 4)])
    served = [torch.cat([batch.indices for batch in step]) for step in zip(*parts, strict=True)]
    assert len(served) == (997 - images_done) // 12
    assert all(len(batch.indices) == size for batches in parts for batch in batches)
    assert torch.equal(torch.cat([*served, order[:0]]), order[images_done:][: 12 * len(served)])
    assert [batch.number for batch in parts[0]] == list(range(83 - len(served), 83))


def test_equal_batches_leave_out_others_in_every_epoch():
    def left_out(epoch):
        served = torch.cat([batch.indices for batch in training_batches(INDICES, 300, 0, epoch, equal=True)])
        return set(INDICES.tolist()) - set(served.tolist())

    assert [len(left_out(epoch)) for epoch in range(3)] == [100] * 3
    assert left_out(0) == left_out(0) != left_out(1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [100, 101, 5, 0])
def test_evaluation_counts_every_image_once_and_no_rank_is_without_a_batch(world_size, size):
    parts = [evaluation_batches(INDICES[:size], 8, rank, world_size) for rank in range(world_size)]
    served = [index for batches in parts for batch in batches for index in batch.indices.tolist()]
    assert sorted(served) == INDICES[:size].tolist()
    assert all(len(batch.indices) <= 8 for batches in parts for batch in batches)
    assert all(len(batches) == 1 or all(len(batch.indices) for batch in batches) for batches in parts)
    assert all(parts)
