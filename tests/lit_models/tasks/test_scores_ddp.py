"""Scores of two real processes with gloo, which see other numbers of images, against those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("score_worker.py")
ROOT = Path(__file__).parents[3]


def scores(folder, *images_of_ranks):
    folder.mkdir()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, folder, str(rank), *map(str, images_of_ranks)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(len(images_of_ranks))
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    return [(folder / f"rank{rank}.json").read_text() for rank in range(len(images_of_ranks))]


@pytest.mark.parametrize("images_of_ranks", [(6, 5), (0, 11)], ids=str)
def test_ranks_say_bit_for_bit_what_one_process_says(tmp_path, images_of_ranks):
    (one,) = scores(tmp_path / "one", sum(images_of_ranks))
    assert 0 < json.loads(one)[0]["map"] < 1
    assert scores(tmp_path / "two", *images_of_ranks) == [one, one]
