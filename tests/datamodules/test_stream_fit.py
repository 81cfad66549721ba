"""Training on shards through the real Trainer: validation, workers, resuming in mid-epoch, two ranks."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import PhotoStream
from experiments.commands.shard import shard

litdata = pytest.importorskip("litdata", reason="litdata is not installed (the extra `stream`)")

SCRIPT = """
import json, sys
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from callbacks import LastCheckpoint
from datamodules import PhotoStream

class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3 * 8 * 8, 2)
        self.seen, self.validated = [], []

    def digests(self, images):
        return [hash(image.contiguous().numpy().tobytes()) for image in images]

    def training_step(self, batch, batch_idx):
        self.seen.append([self.trainer.current_epoch, self.digests(batch[0])])
        return torch.nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch, batch_idx):
        if self.trainer.current_epoch == 0:
            self.validated += self.digests(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    model = Recorder()
    data = PhotoStream(
        options["shards"], image_size=8, batch_size=4, eval_batch_size=3, num_workers=options["workers"], seed=3
    )
    ranks = options["ranks"]
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
        enable_progress_bar=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        default_root_dir=options["folder"],
        callbacks=[
            LastCheckpoint(), ModelCheckpoint(options["folder"], "{step}", every_n_train_steps=1, save_top_k=-1)
        ],
    )
    trainer.fit(model, datamodule=data, ckpt_path=options["checkpoint"], weights_only=True)
    found = {"seen": model.seen, "validated": model.validated, "batches": trainer.num_val_batches}
    with open(f"{options['folder']}/{options['name']}-{trainer.global_rank}.json", "w") as file:
        json.dump(found, file)
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_photos) -> Path:
    """72 training, 8 validation and 6 test photos."""
    folder = make_photos(tmp_path_factory.mktemp("photos") / "data", training=40)
    path = tmp_path_factory.mktemp("stream") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litdata, "optimize", partial(litdata.optimize, start_method="fork"))  # which is quicker
        shard(str(folder), str(path), num_workers=1)
    return path


def _environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }


def _fit(shards: Path, folder: Path, name: str, port: str, ranks: int = 1, workers: int = 0, checkpoint=None) -> list:
    folder.mkdir(exist_ok=True)
    options = {"shards": str(shards), "folder": str(folder), "name": name, "ranks": ranks, "workers": workers}
    options["checkpoint"] = checkpoint and str(checkpoint)
    environment = _environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(options)],
            env=environment | ({"NODE_RANK": "0", "LOCAL_RANK": str(rank)} if ranks > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_a_fit_validates_and_is_resumed_in_mid_epoch(shards, tmp_path, free_port, ranks, workers):
    whole = _fit(shards, tmp_path, "whole", free_port, ranks, workers)
    steps = 72 // (4 * ranks)
    assert [len(rank["seen"]) for rank in whole] == [2 * steps] * ranks
    for epoch in (0, 1):
        seen = [image for rank in whole for e, images in rank["seen"] if e == epoch for image in images]
        assert len(set(seen)) == len(seen) == 72
    validated = [image for rank in whole for image in rank["validated"]]
    assert len(set(validated)) == len(validated) == 8
    assert [rank["batches"] for rank in whole] == ([[3]] if ranks == 1 else [[2], [2]])
    at = steps + 3
    resumed = _fit(shards, tmp_path, "resumed", free_port, ranks, workers, tmp_path / f"step={at}.ckpt")
    for before, after in zip(whole, resumed, strict=True):
        assert after["seen"] == before["seen"][at:]


def _stream(shards, **options) -> PhotoStream:
    return PhotoStream(str(shards), image_size=8, batch_size=4, **{"num_workers": 0} | options)


def test_an_epoch_does_not_go_on_in_another_order(shards):
    state = _stream(shards).state_dict()
    assert (state["epoch"], state["offset"], state["images"], state["order"]) == (0, 0, 0, [4, 1, 0])
    _stream(shards, num_workers=3).load_state_dict(state)  # at the beginning of an epoch any will do
    for options in ({"num_workers": 3}, {"batch_size": 5}):
        data = PhotoStream(str(shards), image_size=8, **{"num_workers": 0, "batch_size": 4} | options)
        with pytest.raises(MisconfigurationException, match="saved in mid-epoch with batch_size 4, 1 ranks and 0 work"):
            data.load_state_dict(state | {"offset": 2, "images": 8})


def test_a_batch_that_the_images_do_not_fill_is_refused(shards):
    data = PhotoStream(str(shards), image_size=8, batch_size=73, num_workers=0)
    with pytest.raises(MisconfigurationException, match="72 training images don't fill one batch of 73 on 1 ranks"):
        data.setup("fit")


def test_a_plain_loop_reads_shards(shards):
    for workers in (0, 2):
        data = _stream(shards, num_workers=workers)
        assert [len(list(data.batches(part))) for part in ("train", "val", "test")] == [18, 2, 2]
    first, again, other = (next(iter(_stream(shards).batches("train", epoch)))[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Pwned:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _pickled(index, folder):
    index["config"]["data_format"][0] = "pickle"


def _all_pickled(index, folder):
    index["config"] |= {"data_format": ["pickle"], "data_spec": None}


def _graph(index, folder):
    index["config"]["data_format"] = ["graph:pickle", "int", "int", "bytes"]


def _elsewhere(index, folder):
    index["chunks"][0]["filename"] = "../../secret.bin"


def _another_loader(index, folder):
    index["config"]["item_loader"] = "TokensLoader"


def _another_structure(index, folder):
    index["config"]["data_spec"] = index["config"]["data_spec"].replace("builtins.dict", "collections.OrderedDict")


def _nothing(index, folder):
    index.clear()


@pytest.mark.parametrize(
    "spoil", [_pickled, _all_pickled, _graph, _elsewhere, _another_loader, _another_structure, _nothing]
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_shards_of_another_format_are_not_opened(shards, tmp_path, spoil, part):
    copy = shutil.copytree(shards, tmp_path / "shards")
    index = json.loads((copy / part / "index.json").read_text())
    for chunk in index["chunks"]:
        (copy / part / chunk["filename"]).write_bytes(
            np.array([1, 12, 999], np.uint32).tobytes() + pickle.dumps(Pwned(tmp_path / "pwned"))
        )
    spoil(index, copy)
    (copy / part / "index.json").write_text(json.dumps(index))
    with pytest.raises(MisconfigurationException, match=r"index\.json is not of the format that `fathom shard` writes"):
        next(_stream(copy).batches(part))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.5]},
        {"std": [0.0, 1.0, 1.0]},
        {"std": "no"},
        {"class_names": []},
        {"class_names": [1, 2]},
        {"images": {"train": 5}},
        {"images": {"train": "5", "val": 0, "test": 0}},
        {"images": {"train": -5, "val": 0, "test": 0}},
    ],
)
def test_a_description_that_fathom_did_not_write_is_refused(shards, tmp_path, change):
    description = json.loads((shards / "description.json").read_text())
    (tmp_path / "description.json").write_text(json.dumps(description))
    PhotoStream(str(tmp_path))
    for text in (json.dumps(description | change), "no JSON", "[]"):
        (tmp_path / "description.json").write_text(text)
        with pytest.raises(MisconfigurationException, match=r"description\.json is n"):
            PhotoStream(str(tmp_path))
