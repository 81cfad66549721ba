"""Continue a run where it was killed, interrupted or preempted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from callbacks import LastCheckpoint
from experiments.cli.arguments import allow_run, flag_is_given
from experiments.cli.command_line import FathomCLI
from experiments.cli.read_config import read_config
from experiments.cli.short_names import with_full_names
from experiments.errors import UsageError
from experiments.runs.fits import summary_of
from experiments.runs.lock import run_lock
from lit_models.checkpoints import check_training_state, read_checkpoint
from lit_models.errors import CheckpointError

HELP = """usage: fathom resume RUN_DIR [options of fathom fit]

Continue a run from its last checkpoint, in its directory and with its configuration.

Options override that configuration, and the differences are printed. A run that was killed before its first
checkpoint starts over, from the checkpoint that it was begun from if there was one. A run that is finished says so;
--trainer.max_epochs trains it for longer. A run of a network of your own needs --import PACKAGE."""


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
        finished = summary_of(run_directory).get("status") == "finished"
        ended = None
        if checkpoint is not None and checkpoint.end and not overrides:
            if finished:
                print(f"{run_directory} is finished; to train it for longer, add --trainer.max_epochs.")
                return
            ended = checkpoint.end
            checkpoint = None if ended.is_first else _before_the_end(run_directory)
        if checkpoint is None:
            if finished:
                raise CheckpointError(f"{run_directory} was trained, and the checkpoints to go on from are gone")
            _start_over(run_directory, config.get("ckpt_path"))
        try:
            ResumeCLI(run_directory, config, checkpoint, overrides, ended)
        except CheckpointError as error:  # what only the parts of the run could tell
            before = whole_checkpoint(run_directory / "checkpoints" / "previous.ckpt")
            if checkpoint is None or before is None or checkpoint.path == before.path:
                raise
            print(f"{error}; the checkpoint before it is taken.")
            ResumeCLI(run_directory, config, before, overrides, ended)


class End(NamedTuple):
    """How far a training came that has ended."""

    epochs: int
    steps: int
    batches: int
    stopped: bool
    """Whether something stopped it, such as early stopping, before ``max_epochs`` and ``max_steps``."""
    is_first: bool
    """Whether no checkpoint was written before."""


class Checkpoint(NamedTuple):
    """A whole checkpoint, with what is needed of it: its file is read, and its checksums compared, only once."""

    path: Path
    end: End | None
    """If it was written at the end of a fit; otherwise ``None``."""
    form: list[str]
    """Flags for the network in it, where the training has changed that."""


class ResumeCLI(FathomCLI):
    """``fathom fit`` with the configuration and the checkpoint of a run, in its directory."""

    def __init__(
        self,
        run_directory: Path,
        config: dict[str, Any],
        checkpoint: Checkpoint | None,
        overrides: list[str],
        ended: End | None,
    ) -> None:
        self._config_before, self._checkpoint, self._ended = config, checkpoint, ended
        from_config = ["--config", str(run_directory / "config.yaml")]
        path = checkpoint.path if checkpoint else config.get("ckpt_path")  # the one that the run was begun from
        begun = [*_as_begun(config), *(checkpoint.form if checkpoint else [])]
        super().__init__(["fit", *from_config, *begun, *overrides, "--ckpt_path", str(path or "null")], run_directory)

    def before_fit(self) -> None:
        if self.config.fit.ckpt_path:
            self._refuse_another_optimizer()
        if self._checkpoint is None:
            rank_zero_only((Path(self.trainer.default_root_dir) / "metrics.csv").unlink)(missing_ok=True)
        if self._ended is not None:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, LastCheckpoint):
                    callback.repeat_end(self._ended.batches if self._ended.stopped else None)
        elif self._checkpoint is not None and self._checkpoint.end is not None:
            self._refuse_if_nothing_is_left(self._checkpoint.end)

    def _refuse_if_nothing_is_left(self, end: End) -> None:
        limits = (self.trainer.max_epochs, end.epochs), (self.trainer.max_steps, end.steps)
        if any(limit is not None and 0 <= limit <= trained for limit, trained in limits):
            raise UsageError(
                f"this run has trained {end.epochs} epochs and {end.steps} steps, and these options leave nothing to"
                " train: raise --trainer.max_epochs or --trainer.max_steps; if it was killed in what follows the"
                " training, resume it without options"
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


def _as_begun(config: dict[str, Any]) -> list[str]:
    """Flags for a run from before there was ``Photos.decode``, that its images stay as they were."""
    data = config.get("data")
    settings = data.get("init_args", {}) if isinstance(data, dict) else {}
    return ["--data.decode", "scaled"] if "crop_ratio" in settings and "decode" not in settings else []


def _start_over(run_directory: Path, begun_from: str | None) -> None:
    """Say so.

    Raises:
        CheckpointError: if the checkpoint that the run was begun from is gone.
    """
    if begun_from and not Path(begun_from).is_file():
        raise CheckpointError(
            f"{run_directory} has no checkpoint of its own, and {begun_from}, from which it was begun, is gone: put it"
            " back, or begin a new run with `fathom fit`"
        )
    print(f"{run_directory} has no checkpoint yet, and starts over" + (f" from {begun_from}." if begun_from else "."))


def _before_the_end(run_directory: Path) -> Checkpoint:
    """The checkpoint from which a run that was killed in what follows the training, such as the merge, is ended again.

    Raises:
        CheckpointError: if it is not there, or not whole.
    """
    if checkpoint := whole_checkpoint(run_directory / "checkpoints" / "previous.ckpt"):
        return checkpoint
    raise CheckpointError(
        f"{run_directory} was trained to its end, and checkpoints/previous.ckpt, from which what follows the training"
        f" is done, is not there: use its weights as they are, as in `fathom test --ckpt_path {run_directory}`"
    )


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
        return Checkpoint(path, None, _form(content))
    run, loops = content["run"], content["loops"]["fit_loop"]
    end = End(
        epochs=loops["epoch_progress"]["current"]["processed"],
        steps=content["global_step"],
        batches=loops["epoch_loop.batch_progress"]["total"]["processed"],
        stopped=run.get("stopped", False),
        is_first=run.get("first", False),
    )
    return Checkpoint(path, end, _form(content))


def _form(content: dict[str, Any]) -> list[str]:
    net = content.get("hyper_parameters", {}).get("net") or {}
    merged = net.get("init_args", {}).get("deep_training") is False  # see callbacks.MergeWhenAnnealed
    return ["--model.net.deep_training", "false"] if merged else []


def _check_it_can_go_on(path: Path, content: dict[str, Any]) -> None:
    check_training_state(path, content)
    if not isinstance(content.get("run"), dict):
        raise CheckpointError(f"{path} does not say where training was, so that no run can go on from it")


@rank_zero_only
def _remove_unfinished(run_directory: Path) -> None:
    """Remove the files that a process was writing when it was killed."""
    for path in [*run_directory.glob(".*.*.[0-9]*"), *(run_directory / "checkpoints").glob(".*.ckpt*")]:
        path.unlink(missing_ok=True)
