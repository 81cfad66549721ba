"""A configuration file as settings, or a sentence about it."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from experiments.runs.safe_yaml import read_yaml


def read_config(config: str) -> dict[str, Any]:
    """The settings in a YAML file; or in ``config`` itself, where it is JSON.

    Raises:
        FileNotFoundError, PermissionError: naming the file.
        MisconfigurationException: for a folder, and for a file that is not YAML or has no settings; with the line.
    """
    text, place = config, "--config"
    if not config.lstrip().startswith("{"):
        path = Path(config)
        if path.is_dir():
            raise MisconfigurationException(f"{path} is a folder: give a YAML file in it as --config")
        if not path.is_file():
            raise FileNotFoundError(f"there is no configuration {path}: give a YAML file as --config")
        place = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise MisconfigurationException(f"{path} is not a text in UTF-8, so it is no YAML file") from error
    try:
        settings = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise MisconfigurationException(f"{place}{line}: not YAML: {shorten(str(problem), 150)}") from error
    if not isinstance(settings, dict):
        what = "is empty" if settings is None else f"holds a {type(settings).__name__}"
        raise MisconfigurationException(
            f"{place} {what}: it takes settings by name, such as trainer: {{max_epochs: 3}}"
        )
    return settings
