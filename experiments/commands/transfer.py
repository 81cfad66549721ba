"""Put backbones into a detector and a segmenter, frozen and fine-tuned on few images, and plot the scores by top-1."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.cli.arguments import allow_run
from experiments.cli.command_line import FathomCLI
from experiments.cli.contract import ChecksImages
from experiments.cli.fit_flags import with_fit_flags
from experiments.cli.initial_weights import as_flag
from experiments.cli.recipes import EXPERIMENTS
from experiments.cli.trusted_names import refusal
from experiments.commands.resume import resume
from experiments.errors import UsageError
from experiments.figures import REFERENCE, house_style, legend_of_all, looks, save
from experiments.runs.directory import experiment_name, run_config
from experiments.runs.fits import read_summary
from experiments.unravel.records import write_records
from lit_models import load_checkpoint
from lit_models.checkpoints import checkpoint_file, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.interfaces import Backbone

RESULTS = EXPERIMENTS / "transfer"
TASKS = {"detection": ("detection_bccd", "val/map"), "segmentation": ("segmentation_camvid", "val/miou")}
"""Recipe and score of each."""
MODES = ("frozen", "fine-tuned")
RANDOM = "random"
Row = dict[str, Any]


class Candidate(NamedTuple):
    """A trained network, or one of its kind with random weights."""

    name: str
    top1: float | None
    flag: str
    """Value of ``--model.net.backbone``."""
    strides: tuple[int, ...]


def transfer(args: list[str]) -> None:
    """Train every combination that is missing, and write one CSV and one plot."""
    parser = ArgumentParser(
        prog="fathom transfer",
        description="Put trained backbones into a detector and a segmenter, frozen and fine-tuned on few images: every"
        " run that is missing, then one CSV and one plot of the scores by top-1. The first backbone is tried with"
        " random weights too. All other flags are those of fathom fit, for all runs alike.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "backbones",
        type=Path,
        nargs="*",
        metavar="RUN",
        help="runs of classifiers; those of one name are one recipe with several seeds",
    )
    parser.add_argument("--detection", type=Path, metavar="FOLDER", help="folder of the data of detection_bccd")
    parser.add_argument("--segmentation", type=Path, metavar="FOLDER", help="folder of the data of segmentation_camvid")
    parser.add_argument("--images", type=int, default=50, help="number of training images (default: 50)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="of backbones (default: both)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs of each combination")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of transfer.csv and transfer.png")
    options, fit_flags = with_fit_flags(parser, args)
    if not options.backbones:
        raise UsageError("fathom transfer needs backbones: give runs of classifiers first")
    folders = {task: getattr(options, task) for task in TASKS if getattr(options, task) is not None}
    if not folders:
        raise UsageError("fathom transfer needs images: give --detection FOLDER, --segmentation FOLDER, or both")
    trained = [candidate(path) for path in options.backbones]
    pairs = paired([random_candidate(options.backbones[0], trained[0]), *trained], options.seeds)
    rows = []
    for mode in options.modes:
        for backbone, seed in pairs:
            for task, folder in folders.items():
                flags = [*flags_of(task, mode, backbone), "--data.root", str(folder)]
                flags += ["--data.train_size", str(options.images), *fit_flags]
                recipe, score = TASKS[task]
                run = train(RESULTS / f"{recipe}.yaml", seed, options.runs, flags)
                rows.append(result(backbone, task, mode, seed, run, score))
                print(f"{backbone.name}, {task}, {mode}, seed {seed}: {rows[-1]['score']:.2%}", flush=True)
    write(rows, options.results)
    print(f"{options.results / 'transfer.csv'} and {options.results / 'transfer.png'} are written")


def candidate(path: Path) -> Candidate:
    """The network of a run.

    Raises:
        CheckpointError, UsageError: for a checkpoint of something else than a classifier with feature maps.
    """
    file = checkpoint_file(path)
    if reason := refusal(file, read_checkpoint(file).get("hyper_parameters", {})):
        raise CheckpointError(reason)
    module: Any = load_checkpoint(file)
    if isinstance(module, ChecksImages) or not isinstance(module.net, Backbone):
        raise UsageError(f"{path} is no run of a classifier with feature maps: give another one as a backbone")
    config = run_config(file)
    name = experiment_name([config]) if config else path.stem
    top1 = read_summary(path).get("metrics", {}).get("val/top1")
    return Candidate(name, top1, str(path), tuple(module.net.feature_strides))


def random_candidate(path: Path, trained: Candidate) -> Candidate:
    """A network as the one at ``path``, with random weights."""
    net = read_checkpoint(checkpoint_file(path))["hyper_parameters"]["net"]
    return Candidate(RANDOM, None, as_flag(net), trained.strides)


def paired(backbones: list[Candidate], seeds: list[int]) -> list[tuple[Candidate, int]]:
    """The runs to train: a backbone alone in its name with every seed, several of one name with a seed each.

    Raises:
        UsageError: for another number of backbones of one name than there are seeds.
    """
    by_name: dict[str, list[Candidate]] = {}
    for backbone in backbones:
        by_name.setdefault(backbone.name, []).append(backbone)
    for name, those in by_name.items():
        if len(those) == 1:
            those *= len(seeds)
        if len(those) != len(seeds):
            raise UsageError(
                f"{len(those)} runs of {name} don't pair with {len(seeds)} seeds: give one run, or one for each seed"
            )
    return [(those[number], seed) for number, seed in enumerate(seeds) for those in by_name.values()]


def flags_of(task: str, mode: str, backbone: Candidate) -> list[str]:
    """What a run differs in from the recipe of its task."""
    flags = ["--model.net.backbone", backbone.flag]
    flags += ["--model.net.frozen_stages", str(len(backbone.strides) if mode == "frozen" else 0)]
    if task == "segmentation":
        return [*flags, "--model.net.output_stride", str(min(8, backbone.strides[-1]))]
    # A pyramid of two maps at least, if there are two.
    return [*flags, "--model.net.finest_stride", str(min(4, backbone.strides[-2:][0]))]


def train(recipe: Path, seed: int, runs: Path, flags: Sequence[str]) -> Path:
    """The finished run of ``recipe`` and ``flags``: that in ``runs``, resumed if it was killed, or a new one."""
    made_from = json.dumps([recipe.read_text(), *flags])
    place = runs / f"seed{seed}-{hashlib.sha256(made_from.encode()).hexdigest()[:8]}"
    there = sorted(config.parent for config in place.glob(f"{recipe.stem}/*/config.yaml"))
    for run in there:
        if read_summary(run).get("status") == "finished":
            return run
    if there:
        allow_run(there[-1] / "config.yaml", [*flags])  # what the user's flags name, as when it was begun
        resume([str(there[-1])])
        return there[-1]
    words = ["fit", "--config", str(recipe), *flags, "--seed_everything", str(seed)]
    return Path(FathomCLI([*words, "--trainer.default_root_dir", str(place)]).trainer.default_root_dir)


def result(backbone: Candidate, task: str, mode: str, seed: int, run: Path, score: str) -> Row:
    """A line of the CSV."""
    summary = read_summary(run)
    if score not in summary["metrics"]:
        raise MisconfigurationException(f"{run} validated nothing: backbones are compared by {score}")
    return {
        "backbone": backbone.name,
        "top1": "" if backbone.top1 is None else backbone.top1,
        "task": task,
        "mode": mode,
        "seed": seed,
        "score": summary["metrics"][score],
        **{name: summary[name] for name in ("epochs", "train_images", "val_images", "parameters", "seconds")},
    }


def write(rows: list[Row], folder: Path) -> None:
    """``transfer.csv`` and ``transfer.png``."""
    write_records(folder / "transfer.csv", rows)
    draw(rows, folder / "transfer.png")


@house_style()
def draw(rows: list[Row], path: Path) -> None:
    """The score of each run by the top-1 of its backbone; lines are the means of random weights."""
    tasks, names = (list(dict.fromkeys(row[column] for row in rows)) for column in ("task", "backbone"))
    figure = Figure(figsize=(4.5 * len(tasks), 4.2))
    colours = looks(name for name in names if name != RANDOM)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for name in names:
            for mode, fill, line in ((MODES[0], "full", "--"), (MODES[1], "none", ":")):
                shown = [row for row in rows if (row["backbone"], row["task"], row["mode"]) == (name, task, mode)]
                scores = [row["score"] for row in shown]
                label = f"{name}, {mode}"
                if name == RANDOM and shown:
                    axes.axhline(mean(scores), color=REFERENCE, linestyle=line, label=label)
                elif known := [row["top1"] for row in shown if row["top1"] != ""]:
                    axes.plot(known, scores, **colours[name], linestyle="none", fillstyle=fill, label=label)
        axes.set(xlabel="top-1 of the backbone", ylabel={"detection": "mAP", "segmentation": "mIoU"}[task])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_of_all(figure, columns=3)
    seeds = sorted({row["seed"] for row in rows})
    train, val, epochs = (
        " and ".join(f"{size:,}" for size in dict.fromkeys(int(row[column]) for row in rows))
        for column in ("train_images", "val_images", "epochs")
    )
    note = f"{train} training images, {val} to validate on, {epochs} epochs"
    save(figure, path, f"{note}; seed {', '.join(map(str, seeds))}; lines are means over the seeds")
