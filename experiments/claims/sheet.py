"""The claims as data: ``claims.yaml`` in the folder of each paper, and the regimes that they are tested in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from experiments.claims.key import recipe, resolve
from experiments.errors import UsageError
from experiments.runs.safe_yaml import read_yaml

EXPERIMENTS = Path(__file__).parents[1]
REGIMES = Path(__file__).with_name("regimes.yaml")

Direction = Literal["greater", "less", "absent"]
Statistic = Literal["contrast", "every", "ratio", "log_ratio", "exact", "time", "none"]

POINTS = {
    "test_error": "{} points of test error",
    "train_error": "{} points of training error",
}
"""What a contrast of each metric is."""


@dataclass(frozen=True)
class Regime:
    """How networks are trained, or that none is."""

    id: str
    title: str
    scale: str
    """In words, for the pages."""
    brief: str = ""
    """In a few."""
    epochs: int = 0
    images: int = 0
    """Training images an epoch."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ``fathom fit``."""


@dataclass(frozen=True)
class Arm:
    """One way to train: a recipe, within a regime, with what differs from both."""

    id: str
    paper: str
    """Folder in which its rows are stored."""
    regime: Regime
    seconds: float
    """An epoch of 50,000 images, on two quiet cores."""
    recipe: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()
    """Further ones of ``fathom fit``."""
    teacher: str | None = None
    """The arm whose network with seed 0 teaches."""
    most_seeds: int | None = None
    epochs: int | None = None
    """Where they are not the regime's, for the price."""

    @property
    def minutes(self) -> float:
        """Price of one training, on two quiet cores."""
        return self.seconds * (self.epochs or self.regime.epochs) * self.regime.images / 50_000 / 60

    @property
    def fit_args(self) -> list[str]:
        """Of ``fathom fit``, but for seed, data and teacher."""
        configs = [self.recipe] if self.recipe else []
        configs += [json.dumps(part) for part in (self.regime.config, self.config) if part]
        return [*(word for config in configs for word in ("--config", config)), *self.words]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All of ``fathom fit``."""
        return resolve(self.fit_args)


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and the rule by which it is graded."""

    id: str
    paper: str
    sentence: str
    papers_value: str
    source: str
    regime: Regime
    statistic: Statistic
    direction: Direction = "greater"
    quantity: str = ""
    """A metric of a training, or ``analysis.quantity`` of a trained network."""
    arms: Mapping[str, float] = field(default_factory=dict)
    """Weights of the arms in a contrast; in a ratio, 1 is above the line and −1 below. A ``log_ratio`` is one of
    |log quantity|, which says how far a factor is from 1, on either side."""
    margin: float = 0.0
    """δ: the smallest difference worth naming, or the threshold of all but a contrast."""
    looks: tuple[int, ...] = (3, 5, 8)
    """Numbers of seeds at which it is graded, and no others."""
    function: str = ""
    """Of an exact or a time claim, ``module:function``."""
    price: str = ""
    """In words, where it is not run."""
    reason: str = ""
    """Why it is not run."""
    scale: str = ""
    """What is special beside the regime."""
    minutes: float = 0.0
    """Price of its analyses."""
    central: bool = False
    """Whether it is one of those that the paper is known for."""
    ours: str = ""
    """What our number is, as in ``{} of the time``; of a contrast it follows from the metric."""
    effect: float | None = None
    """The paper's value in the unit of ours, for the figure."""
    note: str = ""
    """Below the table: why it came out as it did, and what run decides that."""

    @property
    def analysis(self) -> tuple[str, str] | None:
        """Name of the analysis and of its quantity; ``None`` for a metric of the training."""
        name, dot, quantity = self.quantity.partition(".")
        return (name, quantity) if dot else None

    def in_words(self, number: str) -> str:
        """``number``, which is ours, with what it is."""
        return (self.ours or POINTS.get(self.quantity, "{}")).format(number)

    @property
    def rule(self) -> str:
        """What was fixed before the first run, in one line."""
        if self.statistic == "exact":
            return f"exact {self.function}"
        if self.statistic == "time":
            return f"range of the rounds of {self.function}: {self.direction}, margin {self.margin:g}"
        if self.statistic == "none":
            return "none"
        arms = " ".join(f"{weight:+g}·{arm}" for arm, weight in self.arms.items())
        looks = "/".join(map(str, self.looks))
        return f"{self.statistic} of {self.quantity}: {arms}, {self.direction}, margin {self.margin:g}, looks {looks}"

    def seeds(self, arm: Arm, look: int) -> int:
        """Seeds of ``arm`` at a look."""
        return min(look, arm.most_seeds or look)


@dataclass(frozen=True)
class Sheet:
    """Every regime, arm and claim, by id."""

    regimes: Mapping[str, Regime]
    arms: Mapping[str, Arm]
    claims: Mapping[str, Claim]
    titles: Mapping[str, str]
    """Of the papers, by folder."""
    pretrained: Mapping[str, str]
    """Names under which networks come with Fathom, see :mod:`experiments.unravel.pretrained`, by the arm that trains
    them with seed 0."""
    root: Path = EXPERIMENTS

    def chosen(self, names: list[str]) -> list[Claim]:
        """The claims with these ids or of these papers, all where there are no names.

        Raises:
            UsageError: for a name that is neither.
        """
        known = {*self.claims, *self.titles}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"there is no claim or paper {name!r}: papers are {', '.join(self.titles)}, and `fathom reproduce"
                    " --list` shows the claims"
                )
        return [claim for claim in self.claims.values() if not names or claim.id in names or claim.paper in names]


def read_sheet(root: Path = EXPERIMENTS, regimes: Path = REGIMES) -> Sheet:
    """The sheet of all ``claims.yaml`` in the folders of ``root``.

    Raises:
        UsageError: if there is none, or one says what cannot be, with its file and the claim.
    """
    known = {name: Regime(id=name, **content) for name, content in _read(regimes).items()}
    arms: dict[str, Arm] = {}
    claims: dict[str, Claim] = {}
    titles: dict[str, str] = {}
    pretrained: dict[str, str] = {}
    paths = sorted(root.glob("*/claims.yaml"))
    if not paths:
        raise UsageError(f"--sheet: no folder in {root} has a claims.yaml")
    for path in paths:
        content, paper, name = _read(path), path.parent.name, ""
        titles[paper] = content["title"]
        pretrained |= content.get("pretrained") or {}
        try:
            for name, arm in (content.get("arms") or {}).items():
                _once(arms, name)[name] = Arm(id=name, paper=paper, **{**arm, "regime": known[arm["regime"]]})
            for claim in content["claims"]:
                claim = {**claim, "regime": known[claim["regime"]], "looks": tuple(claim.get("looks", (3, 5, 8)))}
                value, source = claim.pop("papers")
                name = claim["id"]
                _once(claims, name)[name] = Claim(paper=paper, papers_value=value, source=source, **claim)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}, {name}: {error}") from error
    named = [(f"claim {item.id}", arm) for item in claims.values() for arm in item.arms]
    named += [(f"pretrained network {name}", arm) for arm, name in pretrained.items()]
    for what, arm in named:
        if arm not in arms:
            raise UsageError(f"{what} names the arm {arm}, which no claims.yaml describes")
    return Sheet(known, arms, claims, titles, pretrained, root)


def _once(known: dict[str, Any], name: str) -> dict[str, Any]:
    if name in known:
        raise ValueError("this id is taken")
    return known


def _read(path: Path) -> dict[str, Any]:
    return read_yaml(path.read_text(encoding="utf-8"))


def recipe_of(arm: Arm, sheet: Sheet) -> str:
    """Hash of what decides the outcome of the arm, see :func:`experiments.claims.key.recipe`."""
    settings = arm.settings
    if arm.teacher:
        model = settings["model"]
        taught = {**model["init_args"], "teacher": recipe_of(sheet.arms[arm.teacher], sheet)}
        settings = {**settings, "model": {**model, "init_args": taught}}
    return recipe(settings)
