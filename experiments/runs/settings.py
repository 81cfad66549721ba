"""The settings of a run's configuration by the names that flags have, such as ``model.net.depth``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Name to number, text or ``None``.

    A class goes by the name of what it is chosen for, as ``model.net``; the classes of a list are named after
    themselves, as ``trainer.callbacks.StochasticDepth.mode``. Other lists are JSON. ``seed_everything`` is ``seed``.
    """
    return {("seed" if name == "seed_everything" else name): value for name, value in _leaves("", config)}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(name if key in ("class_path", "init_args") else f"{name}.{key}".lstrip("."), inner)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "class_path" in item for item in value):
        names = [str(item["class_path"]).rpartition(".")[2] for item in value]
        yield name, ", ".join(names)
        for number, (kind, item) in enumerate(zip(names, value, strict=True)):
            yield from _leaves(f"{name}.{kind if names.count(kind) == 1 else number}", item.get("init_args"))
    else:
        yield name, json.dumps(value) if isinstance(value, list) else value
