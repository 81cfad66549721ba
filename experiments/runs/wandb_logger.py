"""Weights & Biases, with its files in the run directory."""

from __future__ import annotations

import os
import re
import shlex
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from callbacks.run.progress_lines import say


@dataclass
class WandbOptions:
    """What goes to Weights & Biases. Its environment variables go over what files say of it, and flags over them.

    Args:
        mode: ``offline`` keeps the run on disk for ``wandb sync``.
        project: to log to.
        entity: user or team.
        group: of runs (default: the experiment).
        tags: of the run.
        name: of the run (default: that of its directory, after the experiment's).
        notes: on the run.
        artifacts: log the checkpoints of a fit, as versions of an artifact with the aliases best, last and merged.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "fathom"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    name: str | None = None
    notes: str | None = None
    artifacts: bool = True


def wandb_logger(
    run_directory: Path, options: WandbOptions, experiment: str | None = None, job_type: str | None = None
) -> DispensableWandbLogger | None:
    """The logger of a run, ``None`` where it is disabled.

    Its id is :func:`run_id`.

    Args:
        run_directory: that W&B's files lie in.
        options: what the user chose.
        experiment: its group, where ``options`` have none.
        job_type: what the run is: fit, test, ….

    Raises:
        MisconfigurationException: for options that W&B would refuse, some of them only in ``wandb sync``.
    """
    if options.mode == "disabled":
        return None
    name = options.name or f"{run_directory.parent.name}/{run_directory.name}"
    _check(options, name)
    if find_spec("wandb") is None:
        raise MisconfigurationException(
            "Weights & Biases is not installed: pip install wandb, or take --wandb.mode disabled (metrics.csv has every"
            " row anyway)"
        )
    rank_zero_only(run_directory.mkdir)(parents=True, exist_ok=True)  # W&B writes elsewhere where it is missing
    return DispensableWandbLogger(
        name=name,
        notes=options.notes,
        mode=options.mode,
        version=run_id(run_directory),
        save_dir=run_directory,
        offline=options.mode == "offline",
        project=options.project,
        entity=options.entity,
        group=options.group or experiment,
        job_type=job_type,
        tags=list(options.tags),
    )


def sync_line(run_directory: Path) -> str:
    """The command that sends what lies in a run directory to Weights & Biases: the fit, and the tests of it."""
    return f"find {shlex.quote(str(run_directory))} -name 'offline-run-*' -exec wandb sync {{}} +"


def _check(options: WandbOptions, name: str) -> None:
    for option, text, most in (
        ("name", name, 128),
        ("project", options.project, 128),
        ("group", options.group or "", 128),
        *(("tags", tag, 64) for tag in options.tags),
    ):
        if len(text) > most:
            shorter = "--name or --wandb.name" if option == "name" else f"--wandb.{option}"
            raise MisconfigurationException(
                f"Weights & Biases takes a {option.removesuffix('s')} of up to {most} characters, and {text[:32]}… has"
                f" {len(text)}: give a shorter {shorter}"
            )
    if not all(options.tags):
        raise MisconfigurationException("a tag of --wandb.tags is empty, which Weights & Biases does not take")
    if not options.project or (odd := set(options.project) & set("/\\#?%:")):
        what = f"has {' '.join(sorted(odd))} in it" if options.project else "is empty"
        raise MisconfigurationException(f"--wandb.project {options.project!r} {what}: take letters, digits, - and _")


def run_id(run_directory: Path) -> str:
    """The id with which the directory was logged before, wherever it lay; at first that of a sweep, or its name.

    W&B calls its folders ``offline-run-<date>_<time>-<id>`` and ``run-…``.
    """
    known = sorted(run_directory.glob("wandb/*run-*-*"))
    if known:
        return known[0].name.partition("run-")[2].partition("-")[2]
    return _id_in_sweep() or re.sub(r"[^\w-]", "-", run_directory.name)


def _id_in_sweep() -> str | None:
    """The id under which the agent of a sweep expects the run that it has started."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


class DispensableWandbLogger(WandbLogger):
    """Training goes on without it, with a warning, when its process is gone; ``metrics.csv`` has every row.

    Raises:
        MisconfigurationException: where the run can't be begun, such as online without a network or a key.
    """

    _gone = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self._wandb_init["anonymous"]  # of which the client warns, whatever it is

    @property
    def experiment(self) -> Any:
        mode = os.environ.get("WANDB_MODE")
        try:
            if self._experiment is None and not self._offline:
                see_server()
            if self._experiment is None:
                import wandb

                # Its hints and its summary; what it has to say of a run is in the run directory.
                self._wandb_init["settings"] = wandb.Settings(silent=True)
            return super().experiment
        except Exception as error:  # each of its layers has a family of its own
            raise MisconfigurationException(
                f"Weights & Biases can't begin the run ({error}): see to the network and `wandb login`, or take"
                " --wandb.mode offline and `wandb sync` later"
            ) from error
        finally:  # Lightning sets it for an offline run, and the next run in this process is another
            os.environ.pop("WANDB_MODE", None)
            if mode is not None:
                os.environ["WANDB_MODE"] = mode

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(lambda _: super(DispensableWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, *_: Any) -> None:
        """Lightning has those of the module alone, which are in the configuration: see :meth:`log_config`."""

    def log_config(self, config: dict[str, Any]) -> None:
        """Add to the configuration of the run."""
        self.attempt(lambda _: super(DispensableWandbLogger, self).log_hyperparams(config))

    def attempt(self, log: Callable[[Any], Any]) -> None:
        """Call ``log`` with W&B's run, on the first device, as long as its process is there."""
        run = self.experiment
        if self._gone or getattr(rank_zero_only, "rank", False):
            return
        try:
            log(run)
        except Exception as error:
            self._gone = True
            _forget_process()
            reason = " ".join(str(error).split())
            rank_zero_warn(
                f"Weights & Biases is gone from here on ({reason}): training goes on, and metrics.csv has it all."
            )

    def finalize(self, status: str) -> None:
        if not self._gone:
            super().finalize(status)

    def end(self, error: type[BaseException] | None, *_: Any) -> None:
        """End the run, or the next one of this process would go on writing into it. ``error``: what ended it."""
        if self._experiment is not None and not self._gone:
            where = sync_line(Path(str(self._save_dir))) if self._offline else self._experiment.url
            self._experiment.finish(exit_code=int(error is not None))
            say("W&B", where)


def see_server() -> None:
    """Raises ``OSError`` where W&B's server gives no answer or refuses the key; W&B itself would try for minutes."""
    import wandb

    server = wandb.setup(wandb.Settings(silent=True)).settings.base_url
    request = Request(f"{server}/graphql", b'{"query": "{viewer {id}}"}', {"Content-Type": "application/json"})
    if key := os.environ.get("WANDB_API_KEY") or _key_of_login(server):
        request.add_header("Authorization", f"Basic {b64encode(f'api:{key}'.encode()).decode()}")
    try:
        urlopen(request, timeout=10).close()
    except HTTPError as error:  # any other is an answer
        if key and error.code in (401, 403):
            raise PermissionError("its server refuses the key") from None


def _key_of_login(server: str) -> str | None:
    """The key that ``wandb login`` has left in ``~/.netrc``."""
    with suppress(OSError, NetrcParseError):
        if found := netrc().authenticators(urlsplit(server).hostname or ""):
            return found[2]
    return None


def _forget_process() -> None:
    """Else W&B speaks to it once more when Python exits, and prints a traceback."""
    import wandb

    with suppress(Exception):
        wandb.teardown()
