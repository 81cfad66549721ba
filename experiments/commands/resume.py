"""Continue a run where it was killed, interrupted or preempted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from experiments.cli.arguments import allow_run, flag_is_given
from experiments.cli.command_line import FathomCLI
from experiments.cli.read_config import read_config
from experiments.cli.short_names import with_full_names
from experiments.errors import UsageError
from experiments.runs.lock import run_lock
from lit_models.checkpoints import check_training_state, read_checkpoint
from lit_models.errors import CheckpointError

HELP = """usage: fathom resume RUN_DIR [options of fathom fit]

Continue a run from its last checkpoint, in its directory and with its configuration.

Options override that configuration, and the differences are printed. A run that was killed before its first
checkpoint starts over, and one that is finished says so; --trainer.max_epochs trains it for longer. A run of a network
of your own needs --import PACKAGE."""


def resume(args: list[str]) -> None:
    """Run ``fathom resume`` with ``args``.

    Raises:
        UsageError: if the directory is no run, its configuration names a class of a package that the user did not name,
            or another process trains in it.
        CheckpointError: if none of its checkpoints is whole.
    """
    if not args or args[0].startswith("-"):
        if set(args) & {"-h", "--help"}:
            print(HELP)
            return
        raise UsageError("fathom resume takes the directory of a run first")
    run_directory, overrides = Path(args[0]).expanduser().resolve(), with_full_names(args[1:])
    if not (run_directory / "config.yaml").is_file():
        raise UsageError(f"{run_directory} is not the directory of a run: it has no config.yaml")
    if flag_is_given(overrides, "--ckpt_path"):
        raise UsageError("fathom resume finds the checkpoint itself: leave --ckpt_path out")
    config = read_config(str(run_directory / "config.yaml"))
    allow_run(run_directory / "config.yaml", overrides)
    if config.keys() & {"verbose", "return_predictions"}:  # of validate and test, and of predict
        raise UsageError(f"{run_directory} is no training: its config.yaml is of a test or the like")
    with run_lock(run_directory):
        _remove_unfinished(run_directory)
        checkpoint = newest_checkpoint(run_directory)
        finished = _is_finished(run_directory)
        if checkpoint is not None and checkpoint.ended_after and not overrides:
            if finished:
                print(f"{run_directory} is finished; to train it for longer, add --trainer.max_epochs.")
                return
            if _nothing_left(config.get("trainer"), *checkpoint.ended_after):
                checkpoint = _before_the_end(run_directory) or checkpoint
        if checkpoint is None:
            if finished:
                raise CheckpointError(f"{run_directory} was trained, and the checkpoints to go on from are gone")
            print(f"{run_directory} has no checkpoint yet, and starts over.")
        try:
            ResumeCLI(run_directory, config, checkpoint, overrides)
        except CheckpointError as error:  # what only the parts of the run could tell
            before = whole_checkpoint(run_directory / "checkpoints" / "previous.ckpt")
            if checkpoint is None or before is None or checkpoint.path == before.path:
                raise
            print(f"{error}; the checkpoint before it is taken.")
            ResumeCLI(run_directory, config, before, overrides)


class Checkpoint(NamedTuple):
    """A whole checkpoint, with what is needed of it: its file is read, and its checksums compared, only once."""

    path: Path
    ended_after: tuple[int, int] | None
    """Epochs and steps of training, if it was written at the end of a fit; otherwise ``None``."""


class ResumeCLI(FathomCLI):
    """``fathom fit`` with the configuration and the checkpoint of a run, in its directory."""

    def __init__(
        self, run_directory: Path, config: dict[str, Any], checkpoint: Checkpoint | None, overrides: list[str]
    ) -> None:
        self._config_before, self._checkpoint = config, checkpoint
        from_config = ["--config", str(run_directory / "config.yaml")]
        # Without a checkpoint it is null: the configuration may name the one that the run was begun from.
        from_checkpoint = ["--ckpt_path", str(checkpoint.path) if checkpoint else "null"]
        super().__init__(["fit", *from_config, *overrides, *from_checkpoint], run_directory)

    def before_fit(self) -> None:
        if self._checkpoint is None:
            rank_zero_only((Path(self.trainer.default_root_dir) / "metrics.csv").unlink)(missing_ok=True)
            return
        self._refuse_another_optimizer()
        if self._checkpoint.ended_after is None:
            return
        limits = {"max_epochs": self.trainer.max_epochs, "max_steps": self.trainer.max_steps}
        epochs, steps = self._checkpoint.ended_after
        if _nothing_left(limits, epochs, steps):
            raise UsageError(
                f"this run has trained {epochs} epochs and {steps} steps, and these options leave nothing to train:"
                " raise --trainer.max_epochs or --trainer.max_steps"
            )

    def _refuse_another_optimizer(self) -> None:
        model = self._config_before.get("model")
        before = model.get("init_args", {}) if isinstance(model, dict) else {}
        now = self.config.fit.model.init_args
        for name in ("optimizer", "no_bias_decay", "layer_decay"):
            if name in before and before[name] != now.get(name):
                raise UsageError(
                    f"model.{name} can't change from {before[name]} to {now.get(name)} within a run: the checkpoint has"
                    " the state of the optimizer as it was; begin a new run with `fathom fit`"
                )


def _nothing_left(trainer: Any, epochs: int, steps: int) -> bool:
    """Whether a fit with these settings ends at ``epochs`` or ``steps``. What is wrong with them is said later."""
    limits = [trainer.get(name) if isinstance(trainer, dict) else None for name in ("max_epochs", "max_steps")]
    max_epochs, max_steps = (limit if isinstance(limit, int) else -1 for limit in limits)
    return 0 < max_epochs <= epochs or 0 <= max_steps <= steps


def _before_the_end(run_directory: Path) -> Checkpoint | None:
    """The checkpoint before the one of the end, copied to ``last.ckpt``.

    A run that was killed in what follows the training, such as the merge, does its end again, however often.
    """
    last, previous = (run_directory / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    if checkpoint := whole_checkpoint(previous):
        unfinished = last.with_name(".last.ckpt")
        rank_zero_only(shutil.copyfile)(previous, unfinished)
        rank_zero_only(unfinished.replace)(last)
    return checkpoint


def newest_checkpoint(run_directory: Path) -> Checkpoint | None:
    """The last checkpoint, or the one before if that is damaged; ``None`` if there is none yet.

    Raises:
        CheckpointError: if there are some, and none is whole.
    """
    paths = [run_directory / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous")]
    for path in paths:
        if checkpoint := whole_checkpoint(path):
            return checkpoint
    if any(path.exists() for path in paths):
        raise CheckpointError(f"no checkpoint in {run_directory / 'checkpoints'} that training can go on from is whole")
    return None


def whole_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in ``path`` if it is whole; otherwise ``None``, and what is wrong with it is printed."""
    try:
        content = read_checkpoint(path)
        _check_it_can_go_on(path, content)
    except FileNotFoundError:
        return None
    except (CheckpointError, OSError) as error:
        print(f"{error}; the checkpoint before it is looked for.")
        return None
    if content["run"]["moment"] != "end":
        return Checkpoint(path, None)
    epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return Checkpoint(path, (epochs, content["global_step"]))


def _check_it_can_go_on(path: Path, content: dict[str, Any]) -> None:
    run = content.get("run")
    if not isinstance(run, dict):
        raise CheckpointError(f"{path} does not say where training was, so that no run can go on from it")
    check_training_state(path, content)


def _is_finished(run_directory: Path) -> bool:
    try:
        summary = json.loads((run_directory / "summary.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("status") == "finished"


@rank_zero_only
def _remove_unfinished(run_directory: Path) -> None:
    """Remove the files that a process was writing when it was killed."""
    for path in [*run_directory.glob(".*.*.[0-9]*"), *(run_directory / "checkpoints").glob(".*.ckpt*")]:
        path.unlink(missing_ok=True)
