"""Which room imports from which: `python tests/system/arrows.py` prints it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("lit_models", "datamodules", "callbacks", "experiments")

Arrows = dict[str, dict[str, list[str]]]
"""Room -> room that it imports from -> files that do so."""


def room_of(module: str) -> str:
    """The folder a module lies in; ``lit_models.interfaces`` lies in ``lit_models``."""
    path = REPOSITORY.joinpath(*module.split("."))
    while not path.is_dir():
        path = path.parent
    return ".".join(path.relative_to(REPOSITORY).parts)


def imported_modules(path: Path) -> set[str]:
    """The modules of ours that a file imports, also inside functions; imports for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] in PACKAGES}


def arrows() -> Arrows:
    """Every import from one room to another."""
    found: Arrows = defaultdict(lambda: defaultdict(list))
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            relative = path.relative_to(REPOSITORY)
            room = ".".join(relative.parent.parts)
            for target in sorted({room_of(name) for name in imported_modules(path)} - {room}):
                found[room][target].append(str(relative))
    return found


if __name__ == "__main__":
    for room, targets in sorted(arrows().items()):
        print(f"{room:24} -> {', '.join(sorted(targets))}")
