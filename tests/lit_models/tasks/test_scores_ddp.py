"""Scores of two real processes with gloo, which see other numbers of images, against those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import score_worker

ROOT = Path(__file__).parents[3]


def test_ranks_say_bit_for_bit_what_one_process_says(tmp_path):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, score_worker.__file__, tmp_path, str(rank), "6,5", "0,11"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    one = score_worker.scored(0, [11])
    assert 0 < one[0]["map"] < 1
    assert len(one) == 3 or 0 < one[3]["mask_map"] < 1  # without pycocotools
    for rank in range(2):
        assert json.dumps([one, one]) == (tmp_path / f"rank{rank}.json").read_text()
