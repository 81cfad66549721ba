"""A run that was killed, interrupted or preempted goes on where it was, and ends as one that never was."""

import json
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from drill import QUIET, SMALL, Kills, command, differences, finished_run, rows, run_directory, wait

from experiments.__main__ import main
from experiments.runs.lock import run_lock
from lit_models import ImageClassifier

STEPS = 22  # in SMALL, of training and of validation


def same(whole, folder):
    found = list(differences(whole, finished_run(folder)))
    assert not found, found[:10]


def test_the_run_has_what_a_resumed_one_could_lose(whole, event):
    history = rows(whole)
    assert [int(row["step"]) for row in history if row["lr"]] == list(range(8))
    assert len([row for row in history if row["val/top1"]]) == 4
    assert len([row for row in history if row["train/mixed_top1"]]) == 2
    assert any(row["activation_lambda"] not in ("", "0.0", "1.0") for row in history)
    checkpoint = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert any(
        not torch.equal(checkpoint["current_model_state"][name], value)
        for name, value in checkpoint["state_dict"].items()
    )


# The first; one after a checkpoint; in a validation; the last of an epoch and the first of the next; in a validation
# in the middle of an optimizer step; the last of all.
@pytest.mark.parametrize("at", [1, 7, *(pytest.param(at, marks=pytest.mark.slow) for at in (9, 11, 15)), 12, STEPS])
def test_a_run_killed_in_any_step_ends_as_if_it_had_not_been(whole, fit, event, tmp_path, at):
    assert fit(tmp_path, at=at)[0] == -9
    code, said = fit(tmp_path)
    assert code == 0, said
    same(whole, tmp_path)
    assert ("starts over" in said) == (event.count == STEPS)


@pytest.mark.parametrize(("name", "at"), [("SIGTERM", 7), ("SIGUSR1", 9), ("SIGINT", 15), ("SIGHUP", 2)])
def test_a_signal_saves_and_leaves_and_the_run_goes_on(whole, fit, event, tmp_path, name, at):
    """Once no gradient is under way; in a validation, with what was saved before it."""
    flags = [*SMALL, "--last_checkpoint.every_n_steps", "100"]
    code, said = fit(tmp_path, at=at, act=lambda: os.kill(os.getpid(), getattr(signal, name)), flags=flags)
    assert code == 75
    assert event.count <= at + 1  # the step it came in, and the rest of an optimizer step
    assert f"Left after {name}" in said
    assert json.loads((run_directory(tmp_path) / "summary.json").read_text())["status"] == "interrupted"
    assert fit(tmp_path)[0] == 0
    same(whole, tmp_path)


def ask_to_leave(*_):
    os.kill(os.getpid(), signal.SIGTERM)


MERGED_IN_TRAINING = """
model:
  init_args:
    net:
      class_path: lit_models.VanillaNet
      init_args: {depth: 5, width: 4, stem_kernel: 2, stem_stride: 2, series_order: 1}
data: {class_path: datamodules.Digits, init_args: {image_size: 16, batch_size: 32, train_size: 64}}
trainer:
  max_epochs: 3
  limit_val_batches: 1
  precision: 32-true
  callbacks: [{class_path: callbacks.ActivationAnnealing, init_args: {epochs: 1}}, callbacks.MergeWhenAnnealed]
last_checkpoint: {every_n_steps: 1}
wandb: {mode: disabled}
"""


def test_a_network_that_was_merged_in_training_goes_on_merged(fit, tmp_path):
    """Two steps after the merge, so that both checkpoints are of the merged network."""
    (tmp_path / "merged.yaml").write_text(MERGED_IN_TRAINING)
    flags = ["--config", str(tmp_path / "merged.yaml")]
    assert fit(tmp_path / "whole", flags=flags)[0] == 0
    assert fit(tmp_path / "left", at=5, act=ask_to_leave, flags=flags)[0] == 75
    code, said = fit(tmp_path / "left")
    assert (code, "another network" in said, "deep_training:" in said) == (0, False, False)
    same(finished_run(tmp_path / "whole"), tmp_path / "left")


def test_a_signal_before_the_first_step_leaves_at_once(whole, fit, event, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("callbacks.RunSummary.on_fit_start", ask_to_leave)
        code, said = fit(tmp_path)
    assert code == 75
    assert f"Left after SIGTERM; to go on: fathom resume {run_directory(tmp_path)}" in said
    assert event.count == 0
    assert fit(tmp_path)[0] == 0
    same(whole, tmp_path)


def test_a_test_that_is_asked_to_leave_does_not_succeed(whole, ordinary_signals, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ImageClassifier, "test_step", ask_to_leave)
    flags = [*QUIET, "--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="75"):
        main(["test", "--ckpt_path", str(whole / "checkpoints" / "last.ckpt"), *flags])
    assert "Left after SIGTERM" in capsys.readouterr().err


def again_and_again(kind, times, pause=0.0):
    """Sends a signal to this process."""

    def send():
        for _ in range(times):
            os.kill(os.getpid(), kind)
            time.sleep(pause)

    return send


@pytest.mark.parametrize(("name", "times"), [("SIGTERM", 4), ("SIGINT", 2)])
def test_repeated_signals_are_one(whole, fit, tmp_path, name, times):
    code, said = fit(tmp_path, at=5, act=again_and_again(getattr(signal, name), times))
    assert code == 75
    assert said.count("Left after") == 1
    assert fit(tmp_path)[0] == 0
    same(whole, tmp_path)


def test_the_third_ctrl_c_is_obeyed_at_once(fit, tmp_path):
    assert fit(tmp_path, at=5, act=again_and_again(signal.SIGINT, 3))[0] not in (0, 75)


def test_a_signal_repeated_later_is_obeyed_at_once(fit, monkeypatch, tmp_path):
    monkeypatch.setattr("callbacks.run.signals.ONE_REQUEST", 0.1)
    ended = []
    monkeypatch.setattr(signal, "raise_signal", ended.append)
    fit(tmp_path, at=5, act=again_and_again(signal.SIGTERM, 2, pause=0.2))
    assert ended == [signal.SIGTERM]


@pytest.fixture
def interrupted(fit, tmp_path):
    """The directory of a run that was killed in its second epoch."""
    assert fit(tmp_path, at=18)[0] == -9
    return run_directory(tmp_path)


def record(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".yaml", ".json", ".csv")}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (["--model.net.init_args.width", "6"], "is of another network"),
        (["--model.optimizer", "adamw"], "model.optimizer can't change from sgd to adamw"),
        (["--data.batch_size", "0"], "batch_size is 0"),
    ],
)
def test_an_override_that_fails_leaves_the_run_as_it_was(whole, fit, interrupted, tmp_path, override, named):
    before = record(interrupted)
    code, said = fit(tmp_path, *override)
    assert code == 1
    assert named in said
    assert record(interrupted) == before
    assert fit(tmp_path)[0] == 0
    same(whole, tmp_path)


def test_settings_of_the_optimizer_can_be_overridden(whole, fit, interrupted, tmp_path):
    code, said = fit(tmp_path, "--model.lr", "0.005", "--model.weight_decay", "0.5", "--model.momentum", "0.25")
    assert code == 0
    assert "model.init_args.lr: 0.05 -> 0.005" in said
    (state,) = torch.load(interrupted / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert {(group["initial_lr"], group["momentum"]) for group in state["param_groups"]} == {(0.005, 0.25)}
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.0, 0.5}
    rates = [[float(row["lr"]) for row in rows(directory) if row["lr"]] for directory in (whole, interrupted)]
    assert rates[1][:6] == rates[0][:6]
    assert rates[1][6:] == pytest.approx([rate / 10 for rate in rates[0][6:]], rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("run"),
        lambda content: content.update(run=[1]),
        lambda content: content.update(run={"moment": "end"}),
        lambda content: content.update(loops={}),
        lambda content: content.update(optimizer_states=[]),
        lambda content: content.update(callbacks={}),
    ],
    ids=["no moment", "a list", "no means", "no loops", "no optimizer", "no callbacks"],
)
def test_a_checkpoint_that_is_not_one_to_go_on_from_is_passed_over(fit, interrupted, tmp_path, change):
    last = interrupted / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    change(content)
    torch.save(content, last)
    code, said = fit(tmp_path)
    assert code == 0
    assert f"{last} " in said
    assert "; the checkpoint before it is looked for" in said


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(whole, fit, interrupted, tmp_path):
    last = interrupted / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    code, said = fit(tmp_path)
    assert code == 0
    assert f"{last}" in said
    same(whole, tmp_path)


def test_no_run_starts_over_because_its_checkpoints_are_damaged(fit, interrupted, tmp_path):
    for path in interrupted.glob("checkpoints/*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    code, said = fit(tmp_path)
    assert code == 1
    assert "no checkpoint" in said


def test_a_live_run_is_left_alone(fit, interrupted, tmp_path):
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", hold, str(interrupted / ".lock")], stdin=-1, stdout=-1)
    try:
        process.stdout.readline()
        code, said = fit(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert code == 1
    assert "live process" in said
    assert str(os.getpid()) in said  # who wrote the lock last
    with run_lock(interrupted):
        pass  # a dead one is none


def test_a_run_killed_in_its_merge_is_merged_when_it_is_resumed(fit, die, monkeypatch, tmp_path):
    flags = ["--config", "vanillanet_digits", *QUIET, "--data.train_size", "64"]
    flags += ["--trainer.max_epochs", "2"]
    assert fit(tmp_path / "whole", flags=flags)[0] == 0

    with monkeypatch.context() as patch:
        for end, code in ((die, -9), (ask_to_leave, 75), (die, -9)):
            patch.setattr("callbacks.merge_at_fit_end.write_atomically", end)
            assert fit(tmp_path / "broken", flags=flags)[0] == code
    assert fit(tmp_path / "broken", flags=flags)[0] == 0
    ours, theirs = (
        torch.load(run_directory(tmp_path / run) / "merged.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "broken")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_finished_run_says_so_and_can_be_trained_for_longer(whole, fit, tmp_path, event):
    shutil.copytree(whole, tmp_path / "drill" / "moved")
    code, said = fit(tmp_path)
    assert code == 0
    assert "is finished" in said
    assert event.count == 0
    code, said = fit(tmp_path, "--model.lr", "0.1")
    assert code == 1
    assert "max_epochs" in said
    summary = (tmp_path / "drill" / "moved" / "summary.json").read_text()
    assert json.loads(summary)["status"] == "finished"

    code, said = fit(tmp_path, "--trainer.max_epochs", "3")
    assert code == 0
    assert "trainer.max_epochs: 2 -> 3" in said
    assert event.count == STEPS // 2
    history = rows(tmp_path / "drill" / "moved")
    assert history[: len(rows(whole))] == rows(whole)
    assert [int(row["step"]) for row in history if row["lr"]] == list(range(12))
    assert yaml.safe_load((tmp_path / "drill" / "moved" / "config.yaml").read_text())["trainer"]["max_epochs"] == 3


def test_a_run_trained_for_longer_and_killed_is_not_finished(whole, fit, event, monkeypatch, tmp_path):
    flags = ("--trainer.max_epochs", "3")
    for folder in ("one", "two"):
        shutil.copytree(whole, tmp_path / folder / "drill" / "moved")
    assert fit(tmp_path / "one", *flags)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("callbacks.RunSummary.on_exception", lambda *_: None)  # who is killed tells nothing
        assert fit(tmp_path / "two", *flags, at=1)[0] == -9
    assert fit(tmp_path / "two")[0] == 0
    same(tmp_path / "one" / "drill" / "moved", tmp_path / "two")


def test_a_run_on_a_relative_folder_goes_on_from_anywhere(digits_folder, fit, tmp_path, monkeypatch):
    monkeypatch.chdir(digits_folder.parent)
    flags = [*SMALL, "--data", "datamodules.SmallImages", "--data.root", digits_folder.name]
    flags += ["--data.image_size", "8", "--data.batch_size", "4", "--data.train_size", "36"]
    code, said = fit(tmp_path, at=2, flags=flags)
    assert code == -9, said
    monkeypatch.chdir("/")
    assert fit(tmp_path)[0] == 0
    # Neither before nor after the first checkpoint does a run forget how it was begun.
    directory = finished_run(tmp_path)
    began = shlex.join(["fathom", "fit", *flags, "--trainer.default_root_dir", str(tmp_path)])
    assert json.loads((directory / "summary.json").read_text())["commands"] == [began, f"fathom resume {directory}"]


@pytest.mark.parametrize(("known", "expected"), [(False, "scaled"), (True, None)])
def test_photos_of_a_run_from_before_decode_are_decoded_as_they_were(digits_folder, tmp_path, known, expected):
    """At 32 pixels a new run decodes exactly; an older one, whose config.yaml lacks the setting, must not begin to."""
    data = ["--data", "datamodules.Photos", "--data.root", str(digits_folder), "--data.image_size", "32"]
    flags = [*data, "--data.num_workers", "0", "--data.batch_size", "4", "--trainer.default_root_dir", str(tmp_path)]
    net = ["--model", "lit_models.ImageClassifier", "--model.net", "lit_models.CIFARResNet", "--model.net.depth", "8"]
    quiet = ["--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu", "--wandb.mode", "disabled"]
    assert main(["fit", *net, *flags, *quiet, "--trainer.max_steps", "1"]) == 0
    (run,) = tmp_path.glob("unnamed/*")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["init_args"].pop("decode", "none") is None
    if not known:
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["resume", str(run), "--trainer.max_steps", "2"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["decode"] == expected


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(whole, fit, event, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "drill" / "copy")
    shutil.rmtree(copy / "checkpoints")
    before = record(copy)
    for override in ([], ["--trainer.max_epochs", "3"]):
        code, said = fit(tmp_path, *override)
        assert code == 1
        assert "the checkpoints to go on from are gone" in said
    assert record(copy) == before
    assert event.count == 0


def test_the_directory_of_a_test_is_no_training(whole, fit, tmp_path):
    flags = [*QUIET, "--trainer.default_root_dir", str(tmp_path)]
    assert main(["test", "--ckpt_path", str(whole / "checkpoints" / "last.ckpt"), *flags]) == 0
    before = record(run_directory(tmp_path))
    code, said = fit(tmp_path)
    assert code == 1
    assert "is no training" in said
    assert record(run_directory(tmp_path)) == before


@pytest.mark.parametrize(
    ("args", "named"),
    [([], "directory of a run"), (["--trainer.max_epochs", "3"], "directory of a run"), (["nowhere"], "nowhere")],
)
def test_what_is_no_run_gets_a_sentence(args, named, capsys):
    assert main(["resume", *args]) == 1
    assert named in capsys.readouterr().err


def test_a_run_that_names_what_is_not_fathoms_is_refused_until_the_user_does(tmp_path, monkeypatch, capsys):
    (tmp_path / "stranger.py").write_text("import pathlib\npathlib.Path(__file__).with_name('came_in').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("model: {class_path: lit_models.ImageClassifier, init_args: {net: {class_path: stranger.Net}}}\n")
    assert main(["resume", str(tmp_path)]) == 1
    assert "if you trust it, add --import stranger" in capsys.readouterr().err
    assert not (tmp_path / "came_in").exists()
    assert not (tmp_path / ".lock").exists()
    main(["resume", str(tmp_path), "--import", "stranger"])
    assert (tmp_path / "came_in").exists()


class Forked:
    """``fathom`` in a process that needs not import anything; ``script`` in its place gets the same arguments."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["drill", "experiments.commands.resume", "datamodules"])

    def __init__(self, args, script=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fathom", *args])
            run = {"target": runpy.run_module, "args": ("drill",)}
            if script:
                run = {"target": runpy.run_path, "args": (str(script),)}
            self._process = self.context.Process(**run, kwargs={"run_name": "__main__"})
            self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def poll(self):
        return self._process.exitcode


def test_a_run_killed_at_random_ends_as_if_it_had_not_been(whole, tmp_path):
    kill = Kills()
    while finished_run(tmp_path) is None:
        process = Forked(command(tmp_path, SMALL))
        if not (kill.count < 3 and kill(process, tmp_path, 0.3)):
            wait(process)
    assert kill.count == 3
    same(whole, tmp_path)


TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]


def two_processes(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).parent / "one_of_two.py"
    args = command(folder, [*SMALL, *TWO, "--trainer.max_epochs", "1"])
    return [Forked([str(rank), str(port), *args], script) for rank in range(2)]


def exit_codes(processes):
    while None in (codes := [process.poll() for process in processes]):
        time.sleep(0.01)
    return codes


def test_two_processes_leave_together_and_end_as_if_they_had_not(tmp_path):
    assert exit_codes(two_processes(tmp_path / "whole")) == [0, 0]
    whole = finished_run(tmp_path / "whole")

    broken = tmp_path / "broken"
    processes = two_processes(broken)
    while not list(broken.glob("*/*/checkpoints/last.ckpt")):
        time.sleep(0.001)
    os.kill(processes[1].pid, signal.SIGTERM)  # the first is not told
    assert exit_codes(processes) == [75, 75]

    processes = two_processes(broken)
    kill = Kills()
    assert kill(processes[0], broken, 0.1)
    processes[1].kill()
    exit_codes(processes)

    assert exit_codes(two_processes(broken)) == [0, 0]
    same(whole, broken)
    assert len(torch.load(whole / "checkpoints" / "previous.ckpt", weights_only=True)["run"]["epoch_means"]) == 2
