"""Line charts as numbers that a template draws as SVG, each with the table of its values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 470, 10, 212
MOST_POINTS = 200
"""Drawn of a line; a longer one is thinned out evenly."""
_MOST_ROWS = 60
_MOST_HOVERED = 60
COLOURS = 6
"""In the style sheet; a further line has the first one again."""

Point = tuple[float, float]


class Line(NamedTuple):
    """What is drawn in one colour."""

    name: str
    points: list[Point]
    colour: int = 0
    dashed: bool = False


class Chart(NamedTuple):
    """What a template needs to know of one."""

    title: str
    x: str
    lines: list[Line]
    note: str = ""
    percent: bool = False
    log: bool = False
    steps: bool = False
    """A value holds until the next one."""
    names: Sequence[str] = ()
    """Of the places on the x axis, where they are things and not numbers."""

    def drawn(self) -> dict[str, Any]:
        """Ticks as (place, text), and of each line its path and its points as (x, y, text)."""
        every = [point for line in self.lines for point in _finite(line.points, self.log)]
        (x_low, x_high), (y_low, y_high) = (_range([point[axis] for point in every]) for axis in (0, 1))
        across = _Scale(x_low, x_high, _LEFT + 8, _RIGHT - 8)
        if self.log:
            up = _Scale(math.log10(y_low), math.log10(y_high), _BOTTOM - 6, _TOP + 6)
            y_ticks = [float(tick) for tick in LogLocator(numticks=6).tick_values(y_low, y_high)]
        else:
            up = _Scale(y_low, y_high, _BOTTOM - 6, _TOP + 6)
            y_ticks = [float(tick) for tick in MaxNLocator(5).tick_values(y_low, y_high)]
        # Of one epoch alone, the locator has fractions too.
        x_ticks = [float(x) for x in MaxNLocator(6, integer=True).tick_values(x_low, x_high) if float(x).is_integer()]

        def place(y: float) -> float:
            return up(math.log10(y) if self.log else y)

        return {
            "x_ticks": [(across(tick), f"{tick:g}") for tick in x_ticks if x_low <= tick <= x_high],
            "y_ticks": [
                (place(tick), self.said(tick))
                for tick in y_ticks
                if (tick > 0 or not self.log) and _inside(place(tick))
            ],
            "lines": [self._line(line, across, place) for line in self.lines],
        }

    def _line(self, line: Line, across: _Scale, place: Any) -> dict[str, Any]:
        drawn = thinned(line.points, MOST_POINTS)
        hovered = thinned(_finite(line.points, self.log), _MOST_HOVERED)
        return {
            "name": line.name,
            "colour": line.colour % COLOURS,
            "dashed": line.dashed,
            "path": _path([(across(x), place(y)) if _ok(y, self.log) else None for x, y in drawn], self.steps),
            "points": [
                (round(across(x), 1), round(place(y), 1), f"{line.name}, {self.at(x)}: {self.said(y)}")
                for x, y in hovered
            ],
        }

    def said(self, value: float) -> str:
        """A value as text."""
        return f"{100 * value:.4g}%" if self.percent and math.isfinite(value) else f"{value:.4g}"

    def at(self, x: float) -> str:
        """A place on the x axis as text."""
        return self.names[round(x)] if self.names else f"{self.x} {x:g}"

    def summary(self) -> str:
        """What there is to see, for those who don't see it."""
        said = [
            f"{line.name} from {self.said(line.points[0][1])} to {self.said(line.points[-1][1])}"
            for line in self.lines
            if line.points
        ]
        return f"{self.title} by {self.x}: {'; '.join(said)}. The table below has the values."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows, of at most sixty places on the x axis."""
        values = [dict(line.points) for line in self.lines]
        places = thinned(sorted({x for column in values for x in column}), _MOST_ROWS)
        rows = [
            [self.names[round(x)] if self.names else f"{x:g}"]
            + [self.said(column[x]) if x in column else "" for column in values]
            for x in places
        ]
        return [self.x, *(line.name for line in self.lines)], rows


class _Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most that many, evenly spaced, the first and the last one among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _ok(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _finite(points: Sequence[Point], log: bool) -> list[Point]:
    return [point for point in points if _ok(point[1], log)]


def _inside(y: float) -> bool:
    return _TOP <= y <= _BOTTOM


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        return (low - 0.5, high + 0.5) if low <= 0 else (low * 0.9, high * 1.1)
    return low, high


def _path(points: Sequence[Point | None], steps: bool) -> str:
    return " ".join(_moves(points, steps))


def _moves(points: Sequence[Point | None], steps: bool) -> Iterator[str]:
    """A gap begins anew."""
    before: Point | None = None
    for point in points:
        if point is not None:
            x, y = point
            if before is None:
                yield f"M{x:g} {y:g}"
            else:
                yield f"H{x:g} V{y:g}" if steps else f"L{x:g} {y:g}"
        before = point
