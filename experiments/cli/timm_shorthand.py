"""``timm:NAME`` in the place of a network, in configuration files and in flags."""

from __future__ import annotations

from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

from experiments.runs.safe_yaml import read_yaml
from lit_models.names import with_current_names

PREFIX = "timm:"
PARSER_MODE = "yaml with timm networks"
"""The ``parser_mode`` of an ``ArgumentParser`` that understands it."""


def expand(value: Any) -> Any:
    """Every ``timm:NAME`` in a parsed configuration as the class and the arguments it stands for."""
    if isinstance(value, str) and value.startswith(PREFIX):
        return {"class_path": "lit_models.TimmBackbone", "init_args": {"name": value.removeprefix(PREFIX)}}
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    return value


def load(text: str) -> Any:
    """YAML within limits, expanded, and with the names that classes have now."""
    read_yaml(text)  # jsonargparse's own loader has none
    return with_current_names(expand(get_loader("yaml")(text)))


set_loader(PARSER_MODE, load, exceptions=(YAMLError,))
