"""Mutated checkpoints, configurations and images end in a sentence, soon, and touch nothing outside their run.

A few of each here, as many as ``--fuzz`` says with ``make fuzz``. A failure names its seed.
"""

import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.pipeline.decode import DecodeError, decode, image_size

sys.path.insert(0, str(Path(__file__).parent))
import fuzz


@pytest.fixture
def failures(request, tmp_path, monkeypatch):
    """Runs a test with each seed in a folder of its own, with files beside it that none may touch."""

    def of(test, few, times=1):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "canary").write_text("precious")
        (tmp_path / "elsewhere" / "canary").write_text("precious")
        found = {}
        for seed in range(request.config.getoption("--fuzz") * times or few):
            work = tmp_path / "work"
            work.mkdir()
            monkeypatch.chdir(work)
            before = fuzz.snapshot(tmp_path, work)
            try:
                test(work, random.Random(seed))
                assert fuzz.snapshot(tmp_path, work) == before, "files elsewhere changed"
            except Exception as error:
                found[seed] = f"{type(error).__name__}: {error}"
            shutil.rmtree(work)
        return found

    return of


def interrupted(tiny_run, work):
    """A copy of a run that is not known to be finished."""
    run = shutil.copytree(tiny_run, work / "runs" / "tiny" / "run")
    (run / "summary.json").unlink()
    return run


def test_checkpoints(failures, tiny_run):
    def test(work, rng):
        run = interrupted(tiny_run, work)
        last, previous = (run / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
        fuzz.mutated_checkpoint(rng.choice([last, previous]), run / "mutated.ckpt", rng)
        previous.unlink()
        fuzz.run("test", "--ckpt_path", run / "mutated.ckpt", "--trainer.default_root_dir", work / "runs")
        (run / "mutated.ckpt").replace(last)
        fuzz.run("resume", run, "--trainer.max_epochs", 2)

    assert failures(test, few=4) == {}


def test_configurations(failures, tiny_run, tiny_config):
    def test(work, rng):
        run = interrupted(tiny_run, work)
        config = run / "config.yaml"
        (work / "mutated.yaml").write_text(fuzz.mutated_configuration(tiny_config.read_text(), rng), encoding="utf-8")
        flags = ("--trainer.default_root_dir", work / "runs", "--trainer.fast_dev_run", "true")
        fuzz.run("fit", "--config", work / "mutated.yaml", *flags)
        config.write_text(fuzz.mutated_configuration(config.read_text(), rng), encoding="utf-8")
        fuzz.run("resume", run)

    assert failures(test, few=4) == {}


def test_images(failures):
    def test(work, rng):
        data = fuzz.mutated_image(rng)
        with fuzz.memory_limit(4 << 30), fuzz.within(10):
            try:
                image_size(data, "photo")
                image = decode(data, "photo", min_height=rng.choice([0, 8]), min_width=rng.choice([0, 8]))
            except DecodeError as error:
                assert str(error).startswith("photo is ")  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
            else:
                assert image.dtype == np.uint8
                assert image.ndim == 3
                assert image.shape[2] == 3

    assert failures(test, few=200, times=7) == {}
