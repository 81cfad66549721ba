"""Scores of two real processes with gloo, which see other numbers of images, against those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import score_worker

WORKER = Path(score_worker.__file__)
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


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The scores of this process."""
    folder = tmp_path_factory.mktemp("one")
    score_worker.main(folder, 0, 11)
    return (folder / "rank0.json").read_text()


@pytest.mark.parametrize("images_of_ranks", [(6, 5), (0, 11)], ids=str)
def test_ranks_say_bit_for_bit_what_one_process_says(tmp_path, images_of_ranks, one):
    found = json.loads(one)
    assert 0 < found[0]["map"] < 1
    assert len(found) == 3 or 0 < found[3]["mask_map"] < 1  # without pycocotools
    assert scores(tmp_path / "two", *images_of_ranks) == [one, one]
