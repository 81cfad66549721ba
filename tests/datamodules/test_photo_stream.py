from __future__ import annotations

import multiprocessing

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import PhotoStream
from datamodules.pipeline.batches import BatchIndices
from datamodules.pipeline.decode import DecodeError

litdata = pytest.importorskip("litdata", reason="litdata is not installed (the extra `stream`)")


@pytest.fixture(scope="module")
def shards(caltech, tmp_path_factory):
    """Local shards of real photos."""
    from experiments.commands.shard import shard

    path = tmp_path_factory.mktemp("stream") / "shards"
    start_method = multiprocessing.get_start_method()
    shard(str(caltech), str(path), chunk_megabytes=4, num_workers=1)
    multiprocessing.set_start_method(start_method, force=True)  # litdata changes it for the whole process
    return path


def _epoch(data: PhotoStream, epoch: int = 0, offset: int = 0) -> list:
    data.load_state_dict({"epoch": epoch, "offset": offset})
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def _stream(shards, **options) -> PhotoStream:
    data = PhotoStream(str(shards), image_size=32, batch_size=50, num_workers=0, **options)
    data.setup("fit")
    return data


def test_shards_hold_the_whole_data_set(shards, caltech):
    data = _stream(shards)
    assert data.num_classes == 25
    images = {"train_images": 1481, "val_images": 164, "test_images": 500}
    assert data.report().items() >= images.items()
    assert "PhotoStream, 1,481 training images of 32 pixels, 25 classes" in data.explain(None)["data"]
    assert [len(indices) for indices in data.split] == [1481, 164]
    with pytest.raises(MisconfigurationException, match="holds shards, which can't be sampled"):
        data.sample_loader(5)
    assert data.mean == pytest.approx((0.5252, 0.5147, 0.4845), abs=1e-4)
    targets = torch.cat([data.on_after_batch_transfer(batch, 0)[1] for batch in data.test_dataloader()])
    assert targets.bincount().tolist() == [20] * 25
    stored = sum(path.stat().st_size for path in (shards / "test").glob("*.bin"))
    assert stored == pytest.approx(sum(path.stat().st_size for path in caltech.glob("val/*/*.jpg")), rel=0.05)
    assert sum(len(data.on_after_batch_transfer(batch, 0)[1]) for batch in data.val_dataloader()) == 164
    nothing = data.fetcher(test=False)(BatchIndices(torch.arange(0), None, 0))  # a rank may have none to evaluate
    images, targets = data.on_after_batch_transfer(nothing, 0)
    assert (len(images), len(targets), targets.dtype) == (0, 0, torch.int64)


def test_an_epoch_is_reproducible_and_goes_on_from_any_batch(shards):
    data = _stream(shards, mixup_alpha=0.2, mix_prob=0.5)
    whole = _epoch(data)
    assert len(whole) == len(data.train_dataloader()) == 29
    assert all(images.shape == (50, 3, 32, 32) for images, _ in whole)
    assert not torch.equal(whole[0][0], _epoch(data, epoch=1)[0][0])
    for offset in (1, 17, 29):
        rest = _epoch(_stream(shards, mixup_alpha=0.2, mix_prob=0.5), offset=offset)
        assert len(rest) == 29 - offset
        for (images, targets), (other, others) in zip(rest, whole[offset:], strict=True):
            assert torch.equal(images, other)
            assert torch.equal(targets, others)


def test_settings_that_the_shards_decide_are_refused(shards, tmp_path):
    with pytest.raises(MisconfigurationException, match="train_size can't be set for shards"):
        PhotoStream(str(shards), train_size=10)
    with pytest.raises(FileNotFoundError, match=r"has no description\.json; write the shards with `fathom shard"):
        PhotoStream(str(tmp_path))


def test_shard_refuses_what_it_would_spoil(folder, shards):
    from experiments.commands.shard import shard

    with pytest.raises(MisconfigurationException, match="is not empty; give a new folder"):
        shard(str(folder), str(shards))
    (folder / "train" / "cat" / "text.jpg").write_text("no image")
    with pytest.raises(DecodeError, match=r"text\.jpg"):
        shard(str(folder), str(folder / "shards"))
