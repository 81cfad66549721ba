"""How figures look: colour and marker mean a network, legends lie above the data, and a line below says of what."""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from experiments.fonts import font_for, letters_without

STYLE = Path(__file__).with_name("fathom.mplstyle")
FORMATS = (".png", ".svg", ".pdf")
REFERENCE = "0.45"
"""Colour of what is no network: chance, an optimum, all paths."""

house_style = partial(matplotlib.style.context, STYLE)
"""Context or decorator in which a figure is drawn and saved."""


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each network, for every panel of a figure."""
    return dict(zip(names, cycle(rcParams["axes.prop_cycle"]), strict=False))


def spoken(name: str) -> str:
    """The name of an experiment or a rung as a label, without the number that orders it."""
    return name if ":" in name else re.sub(r"^\d+_", "", name).replace("_", " ")


def integers(axis: Axis) -> None:
    """Ticks at integers alone, where something is counted."""
    axis.set_major_locator(MaxNLocator(integer=True))


def legend_above(axes: Axes, columns: int = 1) -> None:
    """A legend between a panel and its title, where it covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, ncols=columns, alignment="left")


def legend_of_all(figure: Figure, columns: int = 3) -> None:
    """One legend above all panels, of what the first that has it shows."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=min(columns, len(handles)))


def chance(axes: Axes, classes: int | None, accuracy: bool = False) -> None:
    """A line at the error of guessing, where the number of classes is known."""
    if classes:
        at = 1 / classes if accuracy else 1 - 1 / classes
        axes.axhline(at, color=REFERENCE, linestyle=(0, (6, 3)), linewidth=1, label="chance")


def save(figure: Figure, path: Path, note: str = "") -> None:
    """Write a figure in the format of ``path``, or where that has no ending, as PNG, SVG and PDF.

    Args:
        figure: drawn in :data:`house_style`.
        path: of the file, whose directory is made.
        note: a line below the figure: data, images, seeds, draws.
    """
    if note:
        width = int(figure.get_figwidth() * 19)  # characters of this size
        figure.supxlabel("\n".join(textwrap.wrap(note, width)), fontsize="small", color="0.35", x=0.01, ha="left")
    _give_letters(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in [path] if path.suffix in FORMATS else [path.with_name(path.name + ending) for ending in FORMATS]:
        dates = {
            ".svg": {"Date": None},
            ".pdf": {"CreationDate": None},
        }  # a picture in a repository changes with its data alone
        figure.savefig(file, metadata=dates.get(file.suffix))


def _give_letters(figure: Figure) -> None:
    """Texts get a second font for the letters that the first lacks; a letter that no font has becomes a dot."""
    letters = {letter for text in figure.findobj(Text) for letter in text.get_text() if ord(letter) > 255}
    lacking = letters_without(findfont(FontProperties()), letters)
    if not lacking:
        return
    path, missing = font_for(lacking)
    if missing:
        warnings.warn(
            f"no font of this system has {''.join(sorted(missing))}: dots stand for them in the figure", stacklevel=3
        )
    dots = str.maketrans(dict.fromkeys(missing, "·"))
    for text in figure.findobj(Text):
        if not lacking.isdisjoint(text.get_text()):
            text.set_fontfamily([*text.get_fontfamily(), FontProperties(fname=path).get_name()])
            text.set_text(text.get_text().translate(dots))
