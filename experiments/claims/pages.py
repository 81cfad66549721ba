"""The pages: a table for each paper, one over all with a figure, and the count in the project's README.

All of it is made from what is stored, so that a page which does not follow from the rows is found.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from math import floor, log10
from pathlib import Path
from textwrap import fill

from experiments.claims import simulation
from experiments.claims.exact import computed
from experiments.claims.figure import forest
from experiments.claims.grading import grade
from experiments.claims.plan import TRAINED, minutes, missing
from experiments.claims.rows import TRAININGS, Ledger
from experiments.claims.sheet import Claim
from experiments.claims.statistics import ALPHA, Grade, Interval
from experiments.unravel.records import Record
from lit_models.files import atomic

BEGIN, END = "<!-- claims: `fathom reproduce` writes what follows -->", "<!-- /claims -->"
HEADLINES = 8
"""Rows in the project's README."""

INTRODUCTION = """# The claims of the papers

What each paper says, rerun at the scale given, and graded by a rule that was written down before the run:
`claims.yaml` in the folder of each paper. (Seed 0 of ResNet-20 and of plain-20 began hours before its rule was in that
file. A "+" behind the commit of a stored row says that the code held changes besides.)

- **held**: the interval lies beyond 0 in the paper's direction. **contradicted**: beyond 0 in the other.
  **absent**: within ±δ, the smallest difference worth naming, by two one-sided tests. **undecided**: none of these,
  with the look at which the observed spread would decide it, where one is left. **not run**: with its price. A claim
  that two things are equal is held within ±δ.
- Differences of trained networks are in points of error. The spread between seeds is pooled over all arms of a regime.
  Looks are fixed before the run and share α = {alpha}; an interval is that of its look. There are looks
{looks}
- In analyses of trained networks the network is the unit: held needs every one, or every pair; the range is over them.
  With no difference, 3 and 3 networks separate in one given direction in 5% of cases, 2 and 3 in 10%; two networks
  alone lie on one given side of a threshold that is their median in 25%, three in 12.5%.
- Times are measured in rounds of turns. The range of seven independent rounds is a 98.4% interval for their median,
  that of five a 93.8% one: held needs the whole range on the claim's side of its threshold, contradicted on the other.
  The last measurement counts: all were made anew on a quiet machine, and S9 and G3t were undecided before.
- Intervals are over seeds, on the same test images; how the result hangs on the images is not in them.
- Nothing is selected on the test images: the last epoch counts. JPEG copies of the images cost accuracy: differences
  are compared with a paper, never absolute numbers.

`fathom reproduce --list` prints the state of every claim, `fathom reproduce CLAIM --data.root data` trains what one
lacks. An asterisk says that the rule was changed after a first result existed. Prices are those of two quiet cores; on
one thread of a busy machine a training took two to four times as long.
"""

SIMULATED = """Simulated claims whose true difference is known: two arms of eight in a regime, s the spread between
seeds, five hundred of each. s is about 0.5 points in F and 0.6 in S, so that δ = 0.5 is nearer to s than to 1.5 s: with
one look at three seeds such a claim can be held or contradicted, and is hardly ever found absent."""


class Pages:
    """Every text that follows from the stored rows.

    Args:
        ledger: the stored rows.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.sheet = ledger.sheet
        self.folder = self.sheet.root / "claims"

    @cached_property
    def grades(self) -> dict[str, Grade]:
        """By claim."""
        found = {}
        for claim in self.sheet.claims.values():
            if claim.statistic == "exact":
                found[claim.id] = Grade("held" if computed(claim.function).held else "contradicted")
            else:
                found[claim.id] = grade(claim, self.ledger)
        return found

    @cached_property
    def texts(self) -> dict[Path, str]:
        """Every file as it should be."""
        papers = [self.sheet.root / paper / "README.md" for paper in self.sheet.titles]
        tables = {path: self._table(path.parent.name) for path in papers}
        tables[self.sheet.root.parent / "README.md"] = self._headlines()
        marked = {path: _between(path, table) for path, table in tables.items() if _is_marked(path)}
        return {
            **marked,
            self.folder / "README.md": self._overview(),
            self.folder / "verdicts.csv": self._verdicts(),
        }

    def write(self) -> list[Path]:
        """Write what has changed, and the figure; the files that were written."""
        self.folder.mkdir(exist_ok=True)
        changed = self.drift()
        for path in changed:
            with atomic(path) as file:
                file.write(self.texts[path])
        if changed or not (self.folder / "claims.png").exists():
            forest(list(self.sheet.claims.values()), self.grades, self.folder / "claims.png")
        return changed

    def drift(self) -> list[Path]:
        """Files that are not what the rows say."""
        return [path for path, text in self.texts.items() if not path.exists() or path.read_text() != text]

    def ours(self, claim: Claim) -> str:
        """The cell with our value."""
        grade = self.grades[claim.id]
        if claim.statistic == "exact":
            return computed(claim.function).ours
        if grade.interval is None:
            return "–"
        digits = 1 if claim.statistic == "contrast" else _decimals(grade.interval)
        value, low, high = (f"{number:.{digits}f}".replace("-", "−") for number in grade.interval)
        words = self.ledger.timing(claim).get("words")
        return claim.in_words(f"{value} ({low} to {high})") + (f": {words}" if words else "")

    def verdict(self, claim: Claim) -> str:
        """The cell with the verdict, or the price."""
        grade = self.grades[claim.id]
        mark = "\\*" if self._changed(claim) else ""
        if grade.verdict == "undecided" and claim.statistic == "contrast":
            return f"undecided{mark}{self._further(claim)}"
        if grade.verdict != "not run":
            return f"**{grade.verdict}**{mark}"
        return f"not run{mark}: {self.price(claim)}" + (f"; {claim.reason}" if claim.reason else "")

    def _further(self, claim: Claim) -> str:
        """What the looks that are left promise of an undecided contrast."""
        if decides := self.grades[claim.id].decides:
            return f": {claim.looks[decides]} seeds would decide"
        return f": {claim.looks[-1]} seeds would not decide" if missing(claim, self.ledger) else ", out of looks"

    def price(self, claim: Claim) -> str:
        """What is missing for the next look."""
        if claim.statistic == "time":
            return "minutes on a quiet machine"
        if claim.statistic not in TRAINED:
            return claim.price
        trainings = missing(claim, self.ledger)
        return (
            f"{minutes(trainings, self.ledger):.0f} minutes on two cores, {len(trainings)} trainings"
            if trainings
            else "an analysis"
        )

    def seeds(self, claim: Claim) -> str:
        """How many networks of each arm count."""
        return "/".join(map(str, self.grades[claim.id].seeds)) or "–"

    def count(self) -> str:
        """How many claims have which verdict, in a sentence."""
        counts = Counter[str](grade.verdict for grade in self.grades.values())
        order = ("held", "contradicted", "absent", "undecided", "not run")
        return f"Of {len(self.grades)} claims: " + ", ".join(f"{counts[name]} {name}" for name in order) + "."

    def _scale(self, claim: Claim) -> str:
        if claim.statistic == "none":
            return "–"
        hardware = [row["hardware"]] if (row := self.ledger.timing(claim)) else []
        return "; ".join([f"{claim.regime.id}: {claim.scale}" if claim.scale else claim.regime.id, *hardware])

    def _looks(self) -> str:
        """Which contrasts have which."""
        claims: dict[tuple[int, ...], list[str]] = {}
        for claim in self.sheet.claims.values():
            if claim.statistic == "contrast":
                claims.setdefault(claim.looks, []).append(claim.id)
        parts = [f"at {', '.join(map(str, looks))} seeds for {', '.join(names)}" for looks, names in claims.items()]
        text = f"{'; '.join(parts) or 'for none'}. Of the dearest arms one or two seeds count at every look."
        return fill(text, 120, initial_indent="  ", subsequent_indent="  ")

    def _table(self, paper: str) -> str:
        claims = [claim for claim in self.sheet.claims.values() if claim.paper == paper]
        header = ["| | claim | paper | ours | scale | seeds | verdict |", "| --- " * 7 + "|"]
        rows = [
            f"| {claim.id} | {claim.sentence} | {claim.papers_value} ({claim.source}) | {self.ours(claim)} |"
            f" {self._scale(claim)} | {self.seeds(claim)} | {self.verdict(claim)} |"
            for claim in claims
        ]
        notes = [f"\n**{claim.id}.** {claim.note}" for claim in claims if claim.note]
        return "\n".join([*header, *rows, *notes])

    def _overview(self) -> str:
        regimes = [f"- **{regime.id}**, {regime.title}: {regime.scale}." for regime in self.sheet.regimes.values()]
        parts = [
            INTRODUCTION.format(alpha=ALPHA, looks=self._looks()),
            self.count(),
            "![Differences with their intervals, and the papers' values](claims.png)",
            "## Regimes",
            "\n".join(regimes),
        ]
        for paper, title in self.sheet.titles.items():
            parts += [f"## {title}", self._table(paper)]
        parts += ["## How often the grading is right", SIMULATED, simulation.table()]
        parts += ["## What was trained", self._trainings()]
        return "\n\n".join(parts) + "\n"

    def _trainings(self) -> str:
        rows = self.ledger.rows[TRAININGS]
        if not rows:
            return "Nothing yet."
        lines = ["| network | seeds | test error | training error | hours | hardware |", "| --- " * 6 + "|"]
        for name, arm in self.sheet.arms.items():
            counted = self.ledger.trainings(arm)
            if counted:
                lines.append(
                    f"| {name} | {', '.join(row['seed'] for row in counted)} | {_values(counted, 'test_error')} |"
                    f" {_values(counted, 'train_error')} | {sum(float(row['seconds']) for row in counted) / 3600:.1f} |"
                    f" {counted[0]['hardware']}, {counted[0]['precision']} |"
                )
        return "\n".join(lines)

    def _headlines(self) -> str:
        lines = [
            f"{self.count()} [All of them](experiments/claims/README.md), each with scale, interval and price.",
            "",
            "| claim | paper | ours | scale | verdict |",
            "| --- " * 5 + "|",
        ]
        lines += [
            f"| {claim.sentence} | {claim.papers_value} ({claim.source}) | {self.ours(claim)} |"
            f" {self.ledger.timing(claim).get('hardware') or claim.regime.brief} | {self.verdict(claim)} |"
            for claim in self._most_telling()[:HEADLINES]
        ]
        return "\n".join(lines)

    def _most_telling(self) -> list[Claim]:
        """The graded claims: of each paper a central one, trained for if possible; what is contradicted; the others."""
        verdicts = {claim.id: self.grades[claim.id].verdict for claim in self.sheet.claims.values()}
        graded = [claim for claim in self.sheet.claims.values() if verdicts[claim.id] != "not run"]
        graded.sort(key=lambda claim: (not claim.central, claim.statistic in ("exact", "time")))
        first = {claim.paper: claim.id for claim in reversed(graded)}
        return sorted(graded, key=lambda claim: (claim.id != first[claim.paper], verdicts[claim.id] != "contradicted"))

    def _verdicts(self) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["claim", "verdict", "rule", "changed"])
        for claim in self.sheet.claims.values():
            changed = "yes" if self._changed(claim) else ""
            writer.writerow([claim.id, self.grades[claim.id].verdict, claim.rule, changed])
        return file.getvalue()

    def _changed(self, claim: Claim) -> bool:
        """Whether the rule became another one after a result existed, now or at any time before."""
        before = self._before.get(claim.id)
        if before is None:
            return False
        return before["changed"] == "yes" or (before["rule"] != claim.rule and before["verdict"] != "not run")

    @cached_property
    def _before(self) -> dict[str, Record]:
        path = self.folder / "verdicts.csv"
        if not path.exists():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            return {row["claim"]: row for row in csv.DictReader(file)}


def _values(rows: Sequence[Record], column: str) -> str:
    return ", ".join(f"{float(row[column]):.2f}%" for row in rows if row.get(column)) or "–"


def _decimals(interval: Interval) -> int:
    """With which the largest of its numbers has three significant digits."""
    largest = max(map(abs, interval))
    return max(2 - floor(log10(largest)), 0) if largest else 0


def _is_marked(path: Path) -> bool:
    return path.exists() and BEGIN in path.read_text(encoding="utf-8")


def _between(path: Path, text: str) -> str:
    """The file with ``text`` between the markers."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
