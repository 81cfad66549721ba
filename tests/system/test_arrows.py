"""Rooms import downwards alone."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("arrows", Path(__file__).with_name("arrows.py"))
arrows = importlib.util.module_from_spec(spec)
spec.loader.exec_module(arrows)

# What each room may import from.
BELOW = {
    "lit_models": {"lit_models.networks"},  # what it offers by name is imported when it is asked for
    "lit_models.networks": {"lit_models"},
    "lit_models.surgery": {"lit_models", "lit_models.networks"},
    "lit_models.transfer": {"lit_models", "lit_models.networks"},
    "lit_models.tasks": {"lit_models", "lit_models.networks", "lit_models.surgery", "lit_models.transfer"},
    "datamodules.pipeline": set(),
    "datamodules": {"datamodules.pipeline"},
    "callbacks.run": {"lit_models", "lit_models.tasks", "lit_models.surgery"},
    "callbacks": {"callbacks.run", "lit_models", "lit_models.tasks", "lit_models.surgery"},
}
# Those of experiments may import from all of these, and from some of their own.
EXPERIMENTS = {
    "experiments": {"experiments.cli", "experiments.runs"},  # the command alone, see below
    "experiments.runs": {"experiments"},
    "experiments.cli": {"experiments", "experiments.runs"},
    "experiments.unravel": {"experiments", "experiments.cli", "experiments.runs"},
    "experiments.bench": {"experiments", "experiments.cli", "experiments.runs", "experiments.unravel"},
    "experiments.check": {
        "experiments",
        "experiments.cli",
        "experiments.runs",
        "experiments.unravel",
        "experiments.bench",
    },
    "experiments.claims": {
        "experiments",
        "experiments.cli",
        "experiments.runs",
        "experiments.unravel",
        "experiments.bench",
    },
    "experiments.export": {"experiments", "experiments.cli", "experiments.runs"},
    "experiments.report": {"experiments", "experiments.cli", "experiments.runs", "experiments.unravel"},
    "experiments.bag_of_tricks": {"experiments.claims"},
    "experiments.commands": {
        "experiments",
        "experiments.cli",
        "experiments.runs",
        "experiments.unravel",
        "experiments.bench",
        "experiments.check",
        "experiments.claims",
        "experiments.export",
        "experiments.report",
        "experiments.bag_of_tricks",
    },
}
LIBRARY = set(BELOW)


def test_every_import_points_downwards():
    allowed = BELOW | {room: own | LIBRARY for room, own in EXPERIMENTS.items()}
    found = arrows.arrows()
    assert len(found) > 8
    upwards = [
        f"{', '.join(files)}: {room} -> {target}"
        for room, targets in found.items()
        for target, files in targets.items()
        if target not in allowed.get(room, LIBRARY)
    ]
    assert upwards == []


def test_of_what_lies_in_experiments_itself_the_command_alone_imports_rooms():
    """Its errors and its fence of private names are for all rooms."""
    files = {file for files in arrows.arrows()["experiments"].values() for file in files}
    assert files == {"experiments/__main__.py"}


def test_an_import_inside_a_function_is_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from experiments.cli import messages\n    import callbacks\n")
    assert arrows.imported_modules(file) == {"experiments.cli.messages", "callbacks"}
