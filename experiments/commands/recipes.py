"""List the recipes that come with Fathom: paper, network, data, epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.cli.recipes import recipes as recipe_files
from experiments.runs.safe_yaml import read_yaml

COLUMNS = ("recipe", "paper", "network", "data", "epochs")


def recipes() -> None:
    """List the recipes that come with Fathom. `fathom fit --config RECIPE` trains one of them."""
    files = sorted(recipe_files().items(), key=lambda recipe: (recipe[1].parent.name, recipe[0]))
    rows = [COLUMNS, *(row(name, path) for name, path in files)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
    print("\n`fathom explain --config RECIPE` prints what a recipe costs, `fathom fit --config RECIPE` trains it.")


def row(name: str, path: Path) -> tuple[str, ...]:
    """What the YAML of a recipe says, in the order of ``COLUMNS``."""
    settings = read_yaml(path.read_text(encoding="utf-8"))
    net, epochs = settings["model"]["init_args"]["net"], settings.get("trainer", {}).get("max_epochs", "")
    depth = net["init_args"].get("depth") if isinstance(net, dict) else None
    network = f"{class_name(net)}-{depth}" if depth else class_name(net)
    return name, path.parent.name.replace("_", " "), network, class_name(settings["data"]), str(epochs)


def class_name(spec: Any) -> str:
    """The class in a configuration without its module."""
    return str(spec["class_path"] if isinstance(spec, dict) else spec).rpartition(".")[2]
