"""Train the bag of tricks, one trick added at a time, and plot what each brought.

A rung is trained from its own YAML after those of all rungs before it, so each file says only what it adds.
"""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser
from pathlib import Path
from statistics import mean
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.cli.command_line import FathomCLI
from experiments.figures import house_style, legend_of_all, save, spoken
from experiments.unravel.records import write_records

FOLDER = Path(__file__).parents[1] / "bag_of_tricks" / "ladder"
RUNGS = sorted(FOLDER.glob("[0-9]*.yaml"))
DISTILLATION, TEACHER = FOLDER / "09_distillation.yaml", FOLDER / "teacher.yaml"
RESULTS = FOLDER.parent

Row = dict[str, Any]
FACTS = ("epochs", "steps", "train_images", "val_images", "parameters", "macs", "precision", "seconds")


def ladder(args: list[str]) -> None:
    """Train every rung that is missing, with each seed, and write one CSV and one plot.

    A run counts as there only if it has finished, with these very files and flags.
    """
    parser = ArgumentParser(
        prog="fathom ladder",
        description="Train the tricks of Bag of Tricks, one added at a time: every run that is missing, then one CSV"
        " and one plot. All other flags are those of fathom fit, for all rungs alike.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the runs of each rung")
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of ladder.csv and ladder.png")
    options, fit_flags = parser.parse_known_args(args)

    rows: list[Row] = []
    for seed in options.seeds:
        for position, rung in enumerate(RUNGS):
            configs, flags = RUNGS[: position + 1], fit_flags
            if DISTILLATION in configs:
                teacher_configs = [*RUNGS[: RUNGS.index(DISTILLATION)], TEACHER]
                teacher = train(teacher_configs, options.seeds[0], options.runs, fit_flags)
                flags = [*fit_flags, "--model.teacher", str(teacher / "checkpoints" / "last.ckpt")]
            run = train(configs, seed, options.runs, flags)
            rows.append(result(rung.stem, seed, run))
            print(f"seed {seed}, {rung.stem}: {rows[-1]['val_top1']:.2%}", flush=True)
    write(rows, options.results)
    print(f"{options.results / 'ladder.csv'} and {options.results / 'ladder.png'} are written")


def train(configs: list[Path], seed: int, runs: Path, flags: list[str]) -> Path:
    """The directory of the run of ``configs`` and ``flags``, which is trained where none in ``runs`` has finished."""
    made_from = [path.read_text() for path in configs] + flags
    place = runs / f"seed{seed}-{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]}"
    for summary in place.glob(f"{configs[-1].stem}/*/summary.json"):
        if json.loads(summary.read_text(encoding="utf-8"))["status"] == "finished":
            return summary.parent
    named = [word for path in configs for word in ("--config", str(path))]
    cli = FathomCLI(["fit", *named, *flags, "--seed_everything", str(seed), "--trainer.default_root_dir", str(place)])
    return Path(cli.trainer.default_root_dir)


def result(rung: str, seed: int, run: Path) -> Row:
    """A line of the CSV."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    if "val/top1" not in summary["metrics"]:
        raise MisconfigurationException(f"{run} validated nothing: the ladder compares validation top-1")
    return {
        "rung": rung,
        "seed": seed,
        "val_top1": summary["metrics"]["val/top1"],
        "val_loss": summary["metrics"]["val/loss"],
        **{name: summary[name] for name in FACTS},
    }


def write(rows: list[Row], folder: Path) -> None:
    """``ladder.csv`` and ``ladder.png``."""
    write_records(folder / "ladder.csv", rows)
    draw(rows, folder / "ladder.png")


@house_style()
def draw(rows: list[Row], path: Path) -> None:
    """Validation top-1 of each rung: the seeds as dots, their mean as a bar with its change from the rung before."""
    rungs = list(dict.fromkeys(row["rung"] for row in rows))
    accuracies = [[row["val_top1"] for row in rows if row["rung"] == rung] for rung in rungs]
    means = [mean(values) for values in accuracies]
    figure = Figure(figsize=(8, 0.42 * len(rungs) + 1.5))
    axes = figure.add_subplot()
    axes.barh(
        [spoken(rung) for rung in rungs],
        means,
        color="0.85",
        label="mean of the seeds (change from the rung before, in points)",
    )
    for position, values in enumerate(accuracies):
        axes.plot(values, [position] * len(values), "o", color="C0", markersize=4, label="a seed")
        change = f" ({100 * (means[position] - means[position - 1]):+.1f})" if position else ""
        axes.text(max(values), position, f"  {means[position]:.1%}{change}", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("validation top-1")
    legend_of_all(figure)
    size, seeds = rows[0], sorted({row["seed"] for row in rows})
    images = f"{size['epochs']} epochs of {size['train_images']:,} images, {size['val_images']:,} to validate on"
    save(figure, path, f"{images}; seed {', '.join(map(str, seeds))}")
