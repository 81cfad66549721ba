"""What an offline run tells Weights & Biases, read back from its file."""

import json
import struct

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from experiments.runs.wandb_logger import WandbOptions, wandb_logger


def records(path):
    """The records of a ``.wandb`` file, a LevelDB log: blocks of 32 KiB with chunks of (crc, length, kind, data)."""
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the only chunk of a record, or its last
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.fixture(scope="module")
def offline_run(quickstart_run):
    (path,) = quickstart_run[0].glob("wandb/offline-run-*/run-*.wandb")
    return quickstart_run[0], list(records(path))


def key(item):
    return item.key or "/".join(item.nested_key)


def test_it_has_the_configuration_under_the_name_of_the_run_directory(offline_run):
    run_directory, recorded = offline_run
    (run,) = {record.run.run_id for record in recorded if record.HasField("run")}
    assert run == run_directory.name
    config = {
        key(item): json.loads(item.value_json)
        for record in recorded
        for part in (record.run.config, record.config)
        for item in part.update
    }
    assert config["model"]["init_args"]["net"]["init_args"]["depth"] == 6
    assert config["data"]["class_path"] == "datamodules.Digits"
    assert config["trainer"]["precision"] == "16-mixed"
    assert config["seed_everything"] == 42


def test_a_copy_of_a_run_keeps_its_id(tmp_path):
    odd = tmp_path / "run: 50%#1"
    assert wandb_logger(odd, WandbOptions()).version == "run--50--1"
    for name in ("offline-run-20261122_092947-20261122-092947-dd35f1", "run-20261123_000000-20261122-092947-dd35f1"):
        (odd / "wandb" / name).mkdir(parents=True)
    assert wandb_logger(odd, WandbOptions()).version == "20261122-092947-dd35f1"


def test_it_has_every_metric_under_one_name(offline_run):
    _, recorded = offline_run
    history = {}
    for record in recorded:
        if record.HasField("history"):
            for item in record.history.item:
                history.setdefault(key(item), []).append(json.loads(item.value_json))
    names = {name for name in history if not name.startswith("_") and name != "trainer/global_step"}
    merge = {name for name in names if name.startswith("merge/")}
    assert names - merge == {
        *("train/loss", "train/top1", "val/loss", "val/top1", "val/top5", "lr", "activation_lambda", "epoch")
    }
    assert {"merge/max_logit_difference_float32", "merge/max_logit_difference_float64", "merge/macs_merged"} <= merge
    assert history["activation_lambda"][0] == 0
    assert history["activation_lambda"][-1] == 1
    assert len(history["val/top1"]) == 20
