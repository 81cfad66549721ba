"""Rerun the papers' claims, grade them and write the pages about them."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.claims.driver import Driver
from experiments.claims.exact import computed
from experiments.claims.pages import Pages
from experiments.claims.plan import Training, minutes, missing, next_training
from experiments.claims.rows import Ledger
from experiments.claims.sheet import EXPERIMENTS, REGIMES, Claim, read_sheet
from experiments.claims.timing import time_claim
from experiments.cli.fit_flags import with_fit_flags
from experiments.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600}


def reproduce(args: list[str]) -> None:
    """Train and analyse what claims lack, within a budget; or show and check what is stored.

    Raises:
        UsageError: if there is no such claim, a check finds something, or a training failed.
    """
    names = list(takewhile(lambda word: not word.startswith("-"), args))  # argparse would take values of other flags
    options, fit_flags = with_fit_flags(_parser(), args[len(names) :])
    regimes = options.sheet / "regimes.yaml"
    sheet = read_sheet(options.sheet, regimes if regimes.exists() else REGIMES)
    claims = sheet.chosen(names)
    ledger = Ledger(sheet)
    if options.list:
        _print_states(claims, Pages(ledger))
    elif options.check:
        _check(Pages(ledger))
    elif options.dry_run:
        _print_plan(claims, ledger)
    else:
        driver = Driver(ledger, claims, options.runs, fit_flags, options.budget, options.jobs)
        try:
            driver.drive()
        finally:
            ledger.read()
            if options.time:
                for claim in claims:
                    if claim.statistic == "time":
                        print(f"{claim.id}: timing", flush=True)
                        time_claim(claim, ledger)
                ledger.read()
            pages = Pages(ledger)
            for path in pages.write():
                print(f"{path} is written")
        print(pages.count())
        if driver.failures:
            raise UsageError("; ".join(driver.failures))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="fathom reproduce",
        usage="fathom reproduce [CLAIM|PAPER ...] [options] [options of fathom fit]",
        description="Train and analyse what the claims of the papers lack (all, or those named), the cheapest first,"
        " and write the pages. All other flags are those of fathom fit and say where the images lie and where to"
        " compute, such as --data.root data. A training that the budget ends is resumed by the next call.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    add_driver_flags(parser, budget="60m", runs=Path("runs/claims"))
    parser.add_argument("--list", action="store_true", help="print the state and price of every claim")
    parser.add_argument("--dry_run", action="store_true", help="print the trainings in their order, and do nothing")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compute the exact claims, and fail if a page is not what the stored rows say",
    )
    parser.add_argument(
        "--time", action="store_true", help="measure the claims about time, too; the machine should be quiet"
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        default=EXPERIMENTS,
        help="folder with a claims.yaml in each of its folders (default: Fathom's papers)",
    )
    return parser


def add_driver_flags(parser: ArgumentParser, budget: str, runs: Path) -> None:
    """``--budget``, ``--jobs`` and ``--runs`` of a command that trains by a ``Driver``, with their defaults."""
    parser.add_argument(
        "--budget", type=_seconds, default=budget, help=f"wall time, such as 60m or 8h (default: {budget})"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=1, help="trainings at once; 0 trains nothing and takes what lies in --runs"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[runs],
        help="folders in which runs are looked for; the first gets new ones",
    )


def _jobs(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text} is no number of trainings at once: give 0, 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ArgumentTypeError(f"{text} is no time: give a number with s, m or h, such as 60m")
    return float(match[1]) * UNITS[match[2] or "m"]


def _print_states(claims: list[Claim], pages: Pages) -> None:
    table = Table("", "claim", "paper", "ours", "verdict", title=pages.count(), title_justify="left")
    for claim in claims:
        table.add_row(
            claim.id, claim.sentence, claim.papers_value, pages.ours(claim), pages.verdict(claim).replace("**", "")
        )
    Console(width=180).print(table)


def _check(pages: Pages) -> None:
    wrong = [
        claim.id
        for claim in pages.sheet.claims.values()
        if claim.statistic == "exact" and not computed(claim.function).held
    ]
    if wrong:
        raise UsageError(f"exact claims do not hold: {', '.join(wrong)}")
    if drifted := pages.drift():
        names = ", ".join(map(str, drifted))
        raise UsageError(f"not what the stored rows say: {names}; `fathom reproduce --jobs 0` writes the pages")
    print(f"{pages.count()} The pages are what the rows say.")


def _print_plan(claims: list[Claim], ledger: Ledger) -> None:
    taken = set[Training]()
    total = 0.0
    while (training := next_training(claims, ledger, taken)) is not None:
        taken.add(training)
        price = minutes([training], ledger)
        total += price
        serves = [claim.id for claim in claims if training in missing(claim, ledger)]
        print(f"{total:6.0f}  {price:5.1f} min  {training.arm}, seed {training.seed}  for {' '.join(serves)}")
