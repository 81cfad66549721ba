"""Trains what the claims lack: each network in a process of its own, within a budget of time.

A training has a key: recipe, images, seed and the precision that the machine really computes in. Its runs lie in a
folder of that name, which is locked while a driver works on it. So a run that a budget or a kill has ended is found and
resumed, one that is finished is never trained again, and two drivers share the work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Event, Timer
from typing import Any

from experiments.claims.found import Run, runs_below, tested
from experiments.claims.key import key, recipe, resolve
from experiments.claims.networks import analyse_network, keep_weights, lacking, unkept
from experiments.claims.plan import Training, next_training
from experiments.claims.rows import TRAININGS, Ledger, store
from experiments.claims.sheet import EXPERIMENTS, Arm, Claim
from experiments.cli.arguments import flag_is_given
from experiments.cli.data_of_run import data_module
from experiments.device import real_precision
from experiments.errors import UsageError
from experiments.runs.lock import run_lock

GRACE = 300.0
"""Seconds that a run has to write its checkpoint in, once it is told to end."""


@dataclass
class Driver:
    """What one call of ``fathom reproduce`` has to do, and does it.

    Args:
        ledger: the stored rows.
        claims: to be decided.
        folders: in which runs are looked for; new ones are written into the first.
        fit_flags: of every ``fathom fit``, above all which images.
        seconds: budget of wall time.
        jobs: trainings at once; with 0 nothing is trained, and only what lies in ``folders`` counts.
    """

    ledger: Ledger
    claims: Sequence[Claim]
    folders: Sequence[Path]
    fit_flags: list[str]
    seconds: float
    jobs: int
    failures: list[str] = field(default_factory=list)
    _over: Event = field(default_factory=Event)
    _children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _images: dict[str, str] = field(default_factory=dict)

    def drive(self) -> None:
        """Until nothing is left to do or the time is over. Failures of single trainings are kept in ``failures``."""
        self._take_what_is_there()
        timer = Timer(self.seconds, self.stop)
        before = {number: signal.signal(number, self._interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
        timer.start()
        try:
            self._analyse()
            if self.jobs:
                self._train()
        finally:
            timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)
            self.ledger.read()

    def stop(self) -> None:
        """Begin nothing more, and let every child write its checkpoint and end."""
        self._over.set()
        for child in list(self._children):
            child.terminate()

    def _interrupted(self, *_: Any) -> None:
        self.stop()
        raise KeyboardInterrupt

    def _train(self) -> None:
        waiting: dict[Future[str | None], Training] = {}
        taken: set[Training] = set()  # by this driver or, for now, by another
        with ThreadPoolExecutor(self.jobs) as pool:
            while True:
                while not self._over.is_set() and len(waiting) < self.jobs:
                    training = next_training(self.claims, self.ledger, taken)
                    if training is None:
                        break
                    taken.add(training)
                    if (job := self._prepared(training)) is not None:
                        waiting[pool.submit(self._trained, job)] = training
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    training = waiting.pop(future)
                    failure = future.result()
                    if failure:
                        self.failures.append(f"{training.arm}, seed {training.seed}: {failure}")
                self.ledger.read()
                if not self._over.is_set():
                    self._analyse()

    def _prepared(self, training: Training) -> Job | None:
        """The job, whose folder is locked from here on; ``None`` if another process has it."""
        arm = self.ledger.sheet.arms[training.arm]
        settings = resolve([*arm.fit_args, *self.fit_flags])
        if recipe(settings) != recipe(arm.settings):
            raise UsageError(
                f"{' '.join(self.fit_flags)} changes what {arm.id} learns, whose settings the claims fix: give flags"
                " that say where images lie and where to compute"
            )
        images = _fingerprint(settings["data"], self._images)
        precision = real_precision(settings["trainer"]["precision"])
        name = key(self.ledger.recipe(arm), images, training.seed, precision)
        job = Job(training, arm, self.ledger.recipe(arm), self.folders[0] / f"{arm.id}-s{training.seed}-{name}")
        try:
            job.locked.enter_context(run_lock(job.folder))
        except UsageError:
            print(f"{job.title}: another process trains it", flush=True)
            return None
        job.run = self._begun(job, (training.seed, images, precision))
        if (
            job.run is not None and job.run.is_alive
        ):  # somebody's; or whoever began it was killed, and its child goes on
            print(f"{job.title}: a process that an earlier call began trains it", flush=True)
            job.locked.close()
            return None
        return job

    def _begun(self, job: Job, outcome: tuple[int, str, str]) -> Run | None:
        """The run of this training that lies in its folder, or in one that the user named beside that of new runs."""
        others = (
            run
            for run in runs_below(self.folders[1:])
            if (run.settings.get("seed_everything"), run.data, run.summary.get("precision")) == outcome
            and _is_like(run, job.arm)
            and run.is_of(job.recipe)
        )
        return next(chain(runs_below([job.folder]), others), None)

    def _trained(self, job: Job) -> str | None:
        """Train and test, store the row; what went wrong, if anything did."""
        with job.locked:
            started = time.monotonic()
            if job.run is None or not job.run.finished:
                print(f"{job.title}: {'training' if job.run is None else 'going on'}", flush=True)
                words = self._fit_words(job) if job.run is None else ["resume", str(job.run.directory)]
                failure = self._call(words, job)
                job.run = next(iter(runs_below([job.run.directory if job.run else job.folder])), None)
                if self._over.is_set():
                    return None
                if failure or job.run is None or not job.run.finished:
                    return failure or "it ended early"
            metrics = tested(job.run, [])
            if metrics is None:
                config = str(job.run.directory / "config.yaml")
                failure = self._call(["test", "--config", config, "--ckpt_path", str(job.run.weights)], job)
                metrics = tested(job.run, [])
                if metrics is None:
                    return None if self._over.is_set() else failure or "its test left no result"
            keep(self.ledger, job.arm, job.recipe, job.run, metrics)
            print(
                f"{job.title}: {1 - metrics['test/top1']:.2%} test error, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            return None

    def _fit_words(self, job: Job) -> list[str]:
        words = ["fit", *job.arm.fit_args, *self.fit_flags, "--seed_everything", str(job.training.seed)]
        if job.arm.teacher:
            teacher = self.ledger.trainings(self.ledger.sheet.arms[job.arm.teacher])[0]["run"]
            (directory,) = (run.directory for run in runs_below(self.folders) if run.directory.name == teacher)
            words += ["--model.teacher", str(directory / "checkpoints" / "last.ckpt")]
        if not flag_is_given([*job.arm.fit_args, *self.fit_flags], "--wandb.mode"):
            words += ["--wandb.mode", "disabled"]
        return [
            *words,
            "--name",
            job.arm.id,
            "--trainer.default_root_dir",
            str(job.folder),
            "--trainer.enable_progress_bar",
            "false",
        ]

    def _call(self, words: list[str], job: Job) -> str | None:
        """``fathom`` with ``words`` as a child, its output in a log; the last line of that if it failed."""
        log = job.folder / "log.txt"
        paths = [str(EXPERIMENTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = str(max((os.cpu_count() or 1) // self.jobs, 1))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with log.open("ab") as output:
            if self._over.is_set():
                return None
            child = subprocess.Popen(
                [sys.executable, "-m", "experiments", *words], stdout=output, stderr=output, env=environment
            )
            self._children.add(child)
            if self._over.is_set():  # it was told to end between the two lines above
                child.terminate()
            try:
                while child.poll() is None:
                    if self._over.wait(0.2):
                        child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
            finally:
                self._children.discard(child)
        if child.returncode == 0:
            return None
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} ({log})"

    def _take_what_is_there(self) -> None:
        """Store the rows of finished runs in the folders, wherever they come from."""
        known = {row["run"]: row for row in self.ledger.rows[TRAININGS]}
        arms = {name: self.ledger.sheet.arms[name] for claim in self.claims for name in claim.arms}
        for run in runs_below(self.folders):
            row = known.get(run.directory.name)
            if not run.finished or (
                row and row["arm"] in arms and row["recipe"] == self.ledger.recipe(arms[row["arm"]])
            ):
                continue
            for arm in arms.values():
                if _is_like(run, arm) and run.is_of(self.ledger.recipe(arm)):
                    metrics = tested(run, self.folders)
                    if metrics is None:
                        print(f"{run.directory} waits for its test: fathom test --ckpt_path {run.weights}")
                    else:
                        keep(self.ledger, arm, self.ledger.recipe(arm), run, metrics)
                        print(f"{arm.id}, seed {run.summary['seed']}: taken from {run.directory}")
                    break
        self.ledger.read()

    def _analyse(self) -> None:
        """Every analysis that a claim wants of a network that is there, and the networks that come with Fathom."""
        networks, analyses = list(unkept(self.ledger)), list(lacking(self.claims, self.ledger))
        if not networks and not analyses:
            return
        runs = {run.directory.name: run.directory for run in runs_below(self.folders)}
        for arm, row in networks:
            if row["run"] in runs:
                keep_weights(self.ledger, arm, row, runs[row["run"]])
        for arm, analysis, row in analyses:
            if self._over.is_set():
                return
            if row["run"] in runs:
                print(f"{arm.id}, seed {row['seed']}: {analysis}", flush=True)
                analyse_network(self.ledger, arm, analysis, row, runs[row["run"]])
        self.ledger.read()


@dataclass
class Job:
    """A training that this driver has locked."""

    training: Training
    arm: Arm
    recipe: str
    folder: Path
    run: Run | None = None
    locked: ExitStack = field(default_factory=ExitStack)

    @property
    def title(self) -> str:
        """For the screen."""
        return f"{self.arm.id}, seed {self.training.seed}"


def keep(ledger: Ledger, arm: Arm, recipe: str, run: Run, metrics: dict[str, float]) -> None:
    """Store the row of a finished run."""
    summary = run.summary
    errors = {
        "test_error": _error(metrics.get("test/top1")),
        "train_error": _error(summary["metrics"].get("train/top1")),
        "val_error": _error(summary["metrics"].get("val/top1")),
    }
    commit = str(summary.get("commit") or "")[:12] + ("+" if summary.get("dirty") else "")
    record = {
        "arm": arm.id,
        "seed": str(summary["seed"]),
        **{name: "" if value is None else f"{value:.4f}" for name, value in errors.items()},
        **{name: str(summary[name]) for name in ("epochs", "steps", "seconds", "parameters", "hardware", "precision")},
        "commit": commit,
        "torch": summary["versions"]["torch"],
        "data": f"{summary['data']} {run.data}",
        "recipe": recipe,
        "run": run.directory.name,
    }
    store(ledger.sheet.root / arm.paper / TRAININGS, record)


def _error(top1: float | None) -> float | None:
    """In %."""
    return None if top1 is None else 100 * (1 - top1)


def _is_like(run: Run, arm: Arm) -> bool:
    """A quick look before the recipes are compared, which takes a second."""
    net = [(settings["model"].get("init_args") or {}).get("net") or {} for settings in (run.settings, arm.settings)]
    return net[0].get("class_path") == net[1].get("class_path") and all(
        (net[1].get("init_args") or {}).get(name) == value
        for name, value in (net[0].get("init_args") or {}).items()
        if name in ("depth", "width", "shortcut", "series_order")
    )


def _fingerprint(spec: dict[str, Any], known: dict[str, str]) -> str:
    """Of the training images; reading them takes seconds, and many arms have the same."""
    place = f"{spec['class_path']} {spec['init_args'].get('root')}"
    if place not in known:
        data = data_module(spec)
        data.prepare_data()
        known[place] = data.fingerprint(test=False)
    return known[place]
