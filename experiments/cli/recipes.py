"""The recipes that come with Fathom: the YAML files in the folders of the papers, by name."""

from __future__ import annotations

import re
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1]
NO_RECIPES = ("claims", "regimes")
"""Other YAML files in the folders of the papers."""


def recipes() -> dict[str, Path]:
    """Every recipe by its name, that of its file without the ending."""
    return {path.stem: path for path in sorted(EXPERIMENTS.glob("*/*.yaml")) if path.stem not in NO_RECIPES}


def recipe_paths(name: str) -> list[Path]:
    """The files of a recipe, later ones over earlier ones; none if there is no such recipe.

    A network of several depths has one file for what they share: ``vanillanet6_imagenet`` says what differs from
    ``vanillanet_imagenet``.
    """
    known, shared = recipes(), re.sub(r"(?<=[a-z])\d+(?=_)", "", name)
    return [known[part] for part in dict.fromkeys((shared, name)) if part in known] if name in known else []


def config_paths(config: str) -> list[str]:
    """``config`` itself if it is the path of a file or JSON, and otherwise the files of the recipe called so.

    ``~`` stands for the home directory.
    """
    if config.lstrip().startswith("{"):
        return [config]
    path = Path(config).expanduser()
    return [str(path)] if path.exists() else list(map(str, recipe_paths(config))) or [config]
