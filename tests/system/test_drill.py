"""A run with everything switched on is killed at random, again and again, and ends as one that never stopped.

It takes minutes: ``pytest -m drill --kills 20``.
"""

import json

import pytest
from drill import CONFIG, Kills, ProcessGroup, command, differences, finished_run, rows, wait


@pytest.mark.drill
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_killed_again_and_again_ends_as_one_that_never_stopped(devices, request, tmp_path):
    kills = request.config.getoption("--kills")
    if devices > 1:
        kills = -(-kills // 4)
    flags = ["--config", str(CONFIG), "--trainer.enable_progress_bar", "false", "--wandb.mode", "disabled"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
    flags += ["--trainer.strategy", "ddp"] if devices > 1 else []

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
