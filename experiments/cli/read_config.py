"""A configuration file as settings, or a sentence about it."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from experiments.cli.messages import did_you_mean
from experiments.cli.recipes import recipes
from experiments.errors import UsageError
from experiments.runs.safe_yaml import read_yaml


def read_config(config: str) -> dict[str, Any]:
    """The settings in a YAML file; or in ``config`` itself, if it is JSON.

    Raises:
        FileNotFoundError, PermissionError: naming the file.
        UsageError: for a folder, and for a file that is not YAML or has no settings; with the line.
    """
    text, place = config, "--config"
    if not config.lstrip().startswith("{"):
        path = Path(config)
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give a YAML file in it as --config")
        if not path.is_file():
            hint = did_you_mean(path.stem, recipes()) or "; `fathom recipes` lists those that come with Fathom"
            raise FileNotFoundError(f"there is no recipe or configuration file {path}{hint}")
        place = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not a text in UTF-8, so it is no YAML file") from error
    try:
        settings = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise UsageError(f"{place}{line}: not YAML: {shorten(str(problem), 150)}") from error
    if not isinstance(settings, dict):
        what = "is empty" if settings is None else f"holds a {type(settings).__name__}"
        raise UsageError(f"{place} {what}: it takes settings by name, such as trainer: {{max_epochs: 3}}")
    return settings
