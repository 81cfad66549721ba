"""Shards that are downloaded: the run is what it is on a disk, whatever the cache may hold, and the cache says what."""

from __future__ import annotations

import numpy as np
import pytest
from drill import QUIET, Kills, ProcessGroup, command, differences, finished_run, wait
from PIL import Image

from datamodules import PhotoStream
from experiments.__main__ import main
from experiments.commands.shard import shard

TINY = """
model:
  init_args:
    net: {class_path: lit_models.CIFARResNet, init_args: {depth: 8, width: 4}}
data:
  class_path: datamodules.PhotoStream
  init_args: {image_size: 8, batch_size: 8, num_workers: 2}
trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1}
last_checkpoint: {every_n_steps: 2}
"""
litdata = pytest.importorskip("litdata", reason="litdata is not installed (the extra `stream`)")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "stream.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def url(tmp_path, monkeypatch):
    """Of about 12 training shards of 12 kB."""
    rng = np.random.default_rng(0)
    for number in range(100):
        path = tmp_path / "photos" / "train" / f"{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    small, optimize = {"start_method": "fork", "chunk_bytes": "12KB"}, litdata.optimize
    monkeypatch.setattr(litdata, "optimize", lambda **options: optimize(**options | small))
    shard(str(tmp_path / "photos"), str(tmp_path / "shards"), num_workers=1)
    return f"local://{tmp_path / 'shards'}"


@pytest.mark.slow
def test_a_run_is_killed_and_resumed_whatever_the_cache_may_hold(url, config, fathom, tmp_path, monkeypatch):
    flags = ["--config", str(config), "--data.root", url, *QUIET]
    assert fathom(*command(tmp_path / "whole", flags)) == (0, "")

    monkeypatch.setenv("FATHOM_CACHE", str(tmp_path / "small"))
    monkeypatch.setenv("FATHOM_CACHE_GB", "0.00004")
    kill = Kills()
    kill.count = 1  # as it writes a checkpoint
    with ProcessGroup(command(tmp_path / "broken", flags)) as process:
        assert kill(process, tmp_path / "broken", 0)
    with ProcessGroup(command(tmp_path / "broken", flags)) as process:
        wait(process, 200)
    found = list(differences(finished_run(tmp_path / "whole"), finished_run(tmp_path / "broken")))
    assert not found, found[:10]


def test_the_cache_keeps_to_its_limit_and_shows_and_clears_shards(url, tmp_path, monkeypatch, capsys):
    def digest_and_size(limit):
        monkeypatch.setenv("FATHOM_CACHE_GB", str(limit))
        cache = tmp_path / f"cache of {limit}"
        monkeypatch.setenv("FATHOM_CACHE", str(cache))
        data = PhotoStream(url, image_size=8, batch_size=4, num_workers=0)
        sizes, images = [], []
        for batch, _ in data.batches("train"):
            images.append(batch.numpy().tobytes())
            sizes.append(sum(path.stat().st_size for path in cache.rglob("*.bin")))
        return images, max(sizes)

    images, most = digest_and_size(0.00004)
    assert most <= 40_000
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert digest_and_size(1) == (images, pytest.approx(140_000, rel=0.2))
    assert "shards/" in shown
    assert main(["cache", "--clear", "true"]) == 0
    assert not list((tmp_path / "cache of 1").rglob("*.bin"))


@pytest.mark.parametrize("scheme", ["http", "file", "azure"])
def test_a_url_that_is_not_read(scheme, config, fathom, tmp_path):
    flags = ["--data.root", f"{scheme}://somewhere/shards", "--trainer.default_root_dir", tmp_path / "runs"]
    code, sentence = fathom("fit", "--config", config, *flags)
    assert code == 1
    assert f"shards are not read from {scheme}://somewhere/shards: give a folder, or a URL with s3, gs" in sentence
    assert not (tmp_path / "runs").exists()
