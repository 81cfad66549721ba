"""Remove from finished runs what only a training needs: optimizer states and spare checkpoints."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import UsageError
from experiments.runs.fits import summary_of
from experiments.runs.lock import run_lock
from lit_models.checkpoints import read_checkpoint, write_atomically

_WEIGHTS = ("state_dict", "hyper_parameters", "hparams_name", "epoch", "global_step", "pytorch-lightning_version")


def clean(runs: list[Path], last: bool = False) -> None:
    """Shrink finished runs: best.ckpt keeps the weights alone, and previous.ckpt goes.

    Evaluation, analyses, prediction and export read the weights alone, and a run can still be trained for longer from
    its last.ckpt.

    Args:
        runs: run directories.
        last: remove last.ckpt, too, where there is a best.ckpt; the run can then not be trained on.
    """
    for run in runs:
        if summary_of(run).get("status") != "finished":
            raise UsageError(f"{run} is no finished run: its summary.json does not say so; nothing was removed in it")
        with run_lock(run):
            before = _size(run)
            _clean(run / "checkpoints", last)
            print(f"{run}: {before / 1e6:,.1f} MB of checkpoints, now {_size(run) / 1e6:,.1f}")


def _clean(folder: Path, last: bool) -> None:
    best = folder / "best.ckpt"
    if best.is_file() and not best.is_symlink():
        checkpoint = read_checkpoint(best)
        write_atomically({name: checkpoint[name] for name in _WEIGHTS if name in checkpoint}, best)
    (folder / "previous.ckpt").unlink(missing_ok=True)
    if last and best.is_file():
        (folder / "last.ckpt").unlink(missing_ok=True)


def _size(run: Path) -> int:
    return sum(path.stat().st_size for path in run.rglob("*.ckpt"))
