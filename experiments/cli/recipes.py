"""The recipes that come with Fathom: the YAML files in the folders of the papers, by name."""

from __future__ import annotations

from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1]


def recipes() -> dict[str, Path]:
    """Every recipe by its name, that of its file without the ending."""
    return {path.stem: path for path in sorted(EXPERIMENTS.glob("*/*.yaml")) if path.parent.name != "commands"}


def recipe_path(config: str) -> str:
    """The file of the recipe called ``config``; ``config`` itself if it is the path of a file, or no recipe.

    ``~`` stands for the home directory.
    """
    if config.lstrip().startswith("{"):
        return config
    path = Path(config).expanduser()
    return str(path) if path.exists() else str(recipes().get(config, config))
