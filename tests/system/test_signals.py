"""A launcher and a scheduler that both ask a run to leave."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lit_models.checkpoints import read_checkpoint


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_sigterm_again_and_again_until_the_process_is_gone(repository, tiny_config, tmp_path, pause):
    words = [sys.executable, "-m", "experiments", "fit", "--config", str(tiny_config)]
    words += ["--trainer.max_epochs", "100000", "--trainer.default_root_dir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        end = time.monotonic() + 100
        while not list(tmp_path.glob("*/*/checkpoints/previous.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(pause or 0.001)
        said = process.stderr.read()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, said
    assert said.count("Left after SIGTERM, saved at step") == 1
    assert "Traceback" not in said
    (last,) = tmp_path.glob("*/*/checkpoints/last.ckpt")
    assert read_checkpoint(last)["run"]["moment"] in ("batch", "validation")
