"""A run with everything switched on is killed at random, again and again, and ends as one that never stopped.

It takes minutes: ``pytest -m drill --kills 20``, each case that often; ``--accelerator gpu`` trains on a GPU, with
deterministic algorithms, as atomic additions come in any order otherwise.
"""

import json
import time

import pytest
import torch
from drill import CONFIG, QUIET, SQUARES, Kills, ProcessGroup, command, differences, finished_run, rows, wait
from PIL import Image

from lit_models.checkpoints import read_checkpoint

BASE = ["--config", str(CONFIG), *QUIET]
TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
# When the annealing is at 0.6, which is before the end.
EARLY_STOPPING = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "activation_lambda"]
EARLY_STOPPING += ["--trainer.callbacks.mode", "max", "--trainer.callbacks.stopping_threshold", "0.6"]
# Pairs of convolutions are merged before the sixth of ten epochs, averaged weights by themselves.
MERGED = ["--config", "vanillanet_digits", *QUIET, "--model.net.width", "8", "--trainer.max_epochs", "10"]
MERGED += ["--trainer.callbacks+=MergeWhenAnnealed", "--trainer.callbacks+=WeightAveraging"]
MERGED += ["--last_checkpoint.every_n_steps", "4", "--trainer.log_every_n_steps", "1"]
CASES = ["digits", "merged in mid-fit", "photos", "shards", "begun from", "early stopping", "two ranks", "detector"]


@pytest.fixture
def accelerator(request, monkeypatch):
    """Flags of the one that was asked for."""
    kind = request.config.getoption("--accelerator")
    if kind == "cpu":
        return ["--trainer.accelerator", "cpu"]
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use here")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return ["--trainer.accelerator", kind, "--trainer.deterministic", "true"]


@pytest.fixture
def flags(request, accelerator, tmp_path):
    """Those of one case."""
    case, base = request.param, [*BASE, *accelerator]
    if case == "merged in mid-fit":
        return [*MERGED, *accelerator]
    if case == "two ranks":
        if "gpu" in accelerator and torch.cuda.device_count() < 2:
            pytest.skip("two ranks need two GPUs")
        return [*base, *TWO_RANKS]
    if case == "detector":
        often = ["--trainer.log_every_n_steps", "1", "--last_checkpoint.every_n_steps", "2"]
        root = ["--data.root", str(request.getfixturevalue("voc_tree")), "--data.num_workers", "2"]
        return ["--config", str(SQUARES), *QUIET, *accelerator, *root, *often, "--trainer.max_epochs", "40"]
    if case == "early stopping":
        return [*base, *EARLY_STOPPING]
    if case == "begun from":
        with ProcessGroup(command(tmp_path / "before", [*base, "--trainer.max_epochs", "2"])) as process:
            wait(process)
        (checkpoint,) = tmp_path.glob("before/*/*/checkpoints/previous.ckpt")
        return [*base, "--ckpt_path", str(checkpoint)]
    if case in ("photos", "shards"):
        for number in range(320):
            path = tmp_path / "photos" / "train" / f"{number % 10}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 30), 20 + number % 10 * 20).convert("RGB").save(path)
        root = tmp_path / case
        if case == "shards":
            pytest.importorskip("litdata", reason="litdata is not installed (the extra `stream`)")
            with ProcessGroup(["shard", str(tmp_path / "photos"), str(root)]) as process:
                wait(process)
        data = ["--data", "datamodules.PhotoStream" if case == "shards" else "datamodules.Photos"]
        data += ["--data.root", str(root), "--data.num_workers", "2"]
        return [*base, *data, "--data.image_size", "16", "--data.batch_size", "16"]
    return base


@pytest.mark.drill
@pytest.mark.parametrize("flags", CASES, indirect=True)
def test_a_run_killed_again_and_again_ends_as_one_that_never_stopped(flags, request, tmp_path):
    kills = request.config.getoption("--kills")
    with ProcessGroup(command(tmp_path / "whole", flags)) as process:
        wait(process)
    whole = finished_run(tmp_path / "whole")
    seconds = json.loads((whole / "summary.json").read_text())["seconds"]

    kill = Kills()
    while (broken := finished_run(tmp_path / "broken")) is None:
        with ProcessGroup(command(tmp_path / "broken", flags)) as process:
            if not (kill.count < kills and kill(process, tmp_path / "broken", 0.5 * seconds / kills)):
                wait(process)
    assert kill.count == kills, f"the run ended after {kill.count} kills: ask for fewer of them"
    assert len(rows(whole)) > 100
    found = list(differences(whole, broken))
    assert not found, found[:20]


@pytest.mark.slow
def test_a_run_killed_after_its_pairs_were_merged_ends_as_one_that_never_stopped(tmp_path):
    flags = [*MERGED, "--data.train_size", "300"]
    with ProcessGroup(command(tmp_path / "whole", flags)) as process:
        wait(process, 300)
    with ProcessGroup(command(tmp_path / "broken", flags)) as process:
        while not has_merged(tmp_path / "broken"):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.02)
        process.kill()
    assert finished_run(tmp_path / "broken") is None
    with ProcessGroup(command(tmp_path / "broken", flags)) as process:
        wait(process, 300)
    whole, broken = finished_run(tmp_path / "whole"), finished_run(tmp_path / "broken")
    assert "merge_when_annealed" in json.loads((broken / "summary.json").read_text())
    found = list(differences(whole, broken))
    assert not found, found[:20]


def has_merged(folder):
    """Whether the last checkpoint is of a network without pairs."""
    paths = list(folder.glob("*/*/checkpoints/last.ckpt"))
    return any(
        not read_checkpoint(path)["hyper_parameters"]["net"]["init_args"].get("deep_training", True) for path in paths
    )
