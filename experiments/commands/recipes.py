"""List the recipes that come with Fathom: paper, network, data, epochs, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.cli.recipes import recipe_paths
from experiments.cli.recipes import recipes as recipe_files
from experiments.runs.safe_yaml import read_yaml

COLUMNS = ("recipe", "paper", "network", "data", "epochs")


def recipes(cost: bool = False) -> None:
    """List the recipes that come with Fathom. `fathom fit --config RECIPE` trains one of them.

    Args:
        cost: also count parameters and multiply-adds per image, which takes some seconds. Where class count and image
            size are those of a folder that is not there yet, they are those of ImageNet.
    """
    files = sorted(recipe_files().items(), key=lambda recipe: (recipe[1].parent.name, recipe[0]))
    rows = [(*COLUMNS, *(("parameters", "multiply-adds") if cost else ()))]
    for name, path in files:
        settings = recipe_settings(name)
        rows.append((*row(name, path, settings), *(network_cost(settings) if cost else ())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
    print("\n`fathom explain --config RECIPE` says what a fit would do, `fathom fit --config RECIPE` does it.")


def recipe_settings(name: str) -> dict[str, Any]:
    """What the files of a recipe say, merged."""
    settings: dict[str, Any] = {}
    for path in recipe_paths(name):
        settings = merged(settings, read_yaml(path.read_text(encoding="utf-8")))
    return settings


def merged(below: Any, above: Any) -> Any:
    """``below`` with the settings of ``above`` over it."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: merged(below.get(name), value) for name, value in above.items()}


def row(name: str, path: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    """What the settings of a recipe say, in the order of ``COLUMNS``."""
    net, epochs = settings["model"]["init_args"]["net"], settings.get("trainer", {}).get("max_epochs", "")
    return name, path.parent.name.replace("_", " "), network_name(net), class_name(settings["data"]), str(epochs)


def network_name(net: Any) -> str:
    """Class and depth of a network, and those of its backbone."""
    arguments = net["init_args"] if isinstance(net, dict) else {}
    name = f"{class_name(net)}-{arguments['depth']}" if "depth" in arguments else class_name(net)
    return f"{name}, {network_name(arguments['backbone'])}" if "backbone" in arguments else name


def class_name(spec: Any) -> str:
    """The class in a configuration without its module."""
    return str(spec["class_path"] if isinstance(spec, dict) else spec).rpartition(".")[2]


def network_cost(settings: dict[str, Any]) -> tuple[str, str]:
    """Parameters, and multiply-adds for one image, of a network that is built without memory.

    Those of a detector are its backbone's, as the work of its heads depends on the image.
    """
    import inspect
    from pkgutil import resolve_name

    import torch

    from lit_models.cost import count_macs, count_parameters

    net, data = settings["model"]["init_args"]["net"], settings["data"]
    images = resolve_name(data["class_path"])
    facts = {name: getattr(images, name, default) for name, default in (("num_classes", 1000), ("in_channels", 3))}
    defaults = [inspect.signature(base).parameters.get("image_size") for base in images.__mro__[:-1]]
    default = next((parameter.default for parameter in defaults if parameter), None)
    size = data.get("init_args", {}).get("image_size", getattr(images, "image_size", default))

    def build(spec: dict[str, Any]) -> torch.nn.Module:
        kind, given = resolve_name(spec["class_path"]), dict(spec.get("init_args", {}))
        if "backbone" in given:
            given["backbone"] = build(given["backbone"])
        taken = inspect.signature(kind).parameters
        return kind(**{name: fact for name, fact in facts.items() if name in taken}, **given)

    with torch.device("meta"):
        network: Any = build(net)
    counted = network.backbone if settings["model"].get("class_path", "").endswith(".Detector") else network
    return f"{count_parameters(network):,}", f"{count_macs(counted, (facts['in_channels'], size, size)):,}"
