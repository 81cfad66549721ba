"""Train the bag of tricks by a plan: one trick added at a time, or several at once, and plot what each brought."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from experiments.bag_of_tricks.arms import QUANTITY, sheet_of
from experiments.bag_of_tricks.plan import Effect, effects, effects_of_two
from experiments.bag_of_tricks.tricks import PLANS, TRICKS
from experiments.claims.driver import Driver
from experiments.claims.rows import TRAININGS, Ledger
from experiments.cli.fit_flags import with_fit_flags
from experiments.commands.reproduce import add_driver_flags
from experiments.errors import UsageError
from experiments.figures import REFERENCE, house_style, legend_of_all, save, spoken

RESULTS = Path(__file__).parents[1] / "bag_of_tricks"


def ladder(args: list[str]) -> None:
    """Train what a plan lacks, within a budget; once nothing is missing, print the effects and draw the figure.

    Raises:
        UsageError: if a training failed or validated nothing, or there are too few seeds.
    """
    options, flags = with_fit_flags(_parser(), args)
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds}: give the number of seeds of each arm, at least 1")
    if options.plan != "ladder" and options.seeds < 2:
        raise UsageError(f"--seeds {options.seeds}: the plan needs at least 2 for its intervals")
    sheet = sheet_of(options.plan, options.seeds, flags, options.results)
    (options.results / options.plan).mkdir(parents=True, exist_ok=True)
    ledger = Ledger(sheet)
    driver = Driver(ledger, [sheet.claims[options.plan]], options.runs, [], options.budget, options.jobs)
    driver.drive()
    if driver.failures:
        raise UsageError("; ".join(driver.failures))
    found = {name: ledger.trainings(sheet.arms[name]) for name in PLANS[options.plan]}
    lacking = [name for name, rows in found.items() if len(rows) < options.seeds]
    if lacking:
        print(f"{', '.join(lacking)}: not trained yet; the same command goes on")
        return
    if any(not row[QUANTITY] for rows in found.values() for row in rows):
        raise UsageError("a run validated nothing: the errors that are compared are those of the validation images")
    errors = {name: [float(row[QUANTITY]) for row in rows[: options.seeds]] for name, rows in found.items()}
    path = options.results / f"{options.plan}.png"
    _draw(options.plan, errors, path)
    print(f"{options.results / options.plan / TRAININGS} and {path} are written")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="fathom ladder",
        description="Train the tricks of Bag of Tricks by a plan: every run that is missing, then one plot. All other"
        " flags are those of fathom fit, for all runs alike. A training that the budget or a signal ends is resumed by"
        " the next call.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--plan",
        choices=list(PLANS),
        default="ladder",
        help="ladder: one trick added at a time; plackett_burman: the effects of all eleven from twelve sets of"
        " tricks; the others: two tricks and their interaction (default: ladder)",
    )
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds of each arm (default: 2)")
    add_driver_flags(parser, budget="24h", runs=Path("runs/ladder"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows and the figure")
    return parser


def _draw(plan: str, errors: Mapping[str, Sequence[float]], path: Path) -> None:
    if plan == "ladder":
        draw_rungs(errors, path)
        return
    if plan == "plackett_burman":
        found = effects(PLANS[plan], errors, TRICKS)
    else:
        _, first, second, _ = PLANS[plan]
        found = effects_of_two(PLANS[plan], errors, first, second)
    for name, (estimate, low, high) in found.items():
        print(f"{name}: {estimate:+.2f} points of validation error ({low:+.2f} to {high:+.2f})")
    draw_effects(found, len(next(iter(errors.values()))), path)


@house_style()
def draw_rungs(errors: Mapping[str, Sequence[float]], path: Path) -> None:
    """Validation top-1 of each rung: the seeds as dots, their mean as a bar with its change from the rung before."""
    accuracies = {name: [100 - error for error in values] for name, values in errors.items()}
    means = [mean(values) for values in accuracies.values()]
    figure = Figure(figsize=(8, 0.42 * len(errors) + 1.5))
    axes = figure.add_subplot()
    label = "mean of the seeds (change from the rung before, in points)"
    axes.barh([spoken(rung) for rung in errors], means, color="0.85", label=label)
    for position, values in enumerate(accuracies.values()):
        axes.plot(values, [position] * len(values), "o", color="C0", markersize=4, label="a seed")
        change = f" ({means[position] - means[position - 1]:+.1f})" if position else ""
        axes.text(max(values), position, f"  {means[position]:.1f}%{change}", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("validation top-1, %")
    legend_of_all(figure)
    save(figure, path, f"{len(means)} rungs with {len(next(iter(errors.values())))} seeds each")


@house_style()
def draw_effects(found: Mapping[str, Effect], seeds: int, path: Path) -> None:
    """Each effect on the validation error with its interval."""
    figure = Figure(figsize=(8, 0.42 * len(found) + 1.5))
    axes = figure.add_subplot()
    for position, (estimate, low, high) in enumerate(found.values()):
        axes.plot([low, high], [position, position], color="C0", marker="", linewidth=2)
        axes.plot(estimate, position, "o", color="C0", markersize=5)
    axes.set_yticks(range(len(found)), [spoken(name) for name in found])
    axes.axvline(0, color=REFERENCE, linewidth=1)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points of validation error where it is on, less where it is off")
    save(figure, path, f"intervals of 95%; {seeds} seeds of each set of tricks")
