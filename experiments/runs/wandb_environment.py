"""What W&B's environment variables say of a run. They go over the configuration files; flags go over them."""

from __future__ import annotations

import os
from typing import Any

from experiments.errors import UsageError

VARIABLES = {
    "mode": "WANDB_MODE",
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
}
"""The variable of each of the ``WandbOptions``."""
MODES = {**{mode: mode for mode in ("offline", "online", "disabled")}, "dryrun": "offline", "run": "online"}
"""What W&B calls them, with two names of old."""


def wandb_environment() -> dict[str, Any]:
    """The options that are set, by name.

    Raises:
        UsageError: for a mode that is none.
    """
    options: dict[str, Any] = {name: os.environ[key] for name, key in VARIABLES.items() if os.environ.get(key)}
    if "tags" in options:
        options["tags"] = tuple(tag.strip() for tag in options["tags"].split(","))
    if (mode := options.get("mode")) is not None:
        if mode not in MODES:
            raise UsageError(f"WANDB_MODE is {mode}; set it to offline, online or disabled")
        options["mode"] = MODES[mode]
    return options
