"""What an offline run tells Weights & Biases, read back from its file."""

import json
import os
import struct
import time

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


def test_the_environment_goes_over_files_and_flags_over_the_environment(tiny_config, fathom, tmp_path, monkeypatch):
    variables = {"WANDB_PROJECT": "mine", "WANDB_TAGS": "a, b", "WANDB_NAME": "one", "WANDB_NOTES": "of mine"}
    for name, value in {**variables, "WANDB_MODE": "dryrun", "WANDB_RUN_GROUP": "seeds"}.items():
        monkeypatch.setenv(name, value)
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    assert fathom("fit", "--config", tiny_config, *runs, "--wandb.group", "others") == (0, "")
    assert os.environ["WANDB_MODE"] == "dryrun"
    (file,) = tmp_path.glob("runs/tiny/*/wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20  # its process writes the file
    while not any(record.HasField("exit") for record in records(file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    run = next(record.run for record in records(file) if record.HasField("run"))
    assert (run.project, run.display_name, run.notes, list(run.tags)) == ("mine", "one", "of mine", ["a", "b"])
    assert run.run_group == "others"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "off") == (0, "")
    assert list((tmp_path / "off").rglob("wandb")) == []
    monkeypatch.setenv("WANDB_MODE", "onlin")
    code, sentence = fathom("fit", "--config", tiny_config, "--trainer.default_root_dir", tmp_path / "none")
    assert (code, sentence) == (1, "WANDB_MODE is onlin; set it to offline, online or disabled")


def test_analyses_heed_the_environment(tiny_run, fathom, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    lesion = ("lesion", tiny_run, "--images", "16", "--draws", "1", "--sizes", "[1]", "--out", tmp_path / "out")
    assert fathom(*lesion)[0] == 0
    assert list(tmp_path.rglob("wandb")) == []
