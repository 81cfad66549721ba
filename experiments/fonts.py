"""Fonts that have the letters of a text, such as those of Korean class names."""

from __future__ import annotations

from collections.abc import Set

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font


def letters_without(path: str, letters: Set[str]) -> set[str]:
    """Those of ``letters`` that the font in the file ``path`` lacks."""
    known = get_font(path).get_charmap()
    return {letter for letter in letters if ord(letter) not in known}


def font_for(letters: Set[str]) -> tuple[str, set[str]]:
    """File of the font of this system that lacks the fewest of ``letters``, and those that it lacks."""
    first = str(findfont(FontProperties()))
    best = first, letters_without(first, letters)
    # One that comes with matplotlib has a box for every letter.
    for path in sorted({found.fname for found in fontManager.ttflist if "Last Resort" not in found.name}):
        if not best[1]:
            break
        lacks = letters_without(path, letters)
        if len(lacks) < len(best[1]):
            best = path, lacks
    return best
