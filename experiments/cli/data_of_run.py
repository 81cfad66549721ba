"""The data that a run was trained on, as its configuration describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.pipeline.image_data import ImageData
from experiments.cli.paths import resolve_paths
from experiments.cli.trusted_names import refusal
from experiments.runs.fits import settings_of


def data_settings(config: Path) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of the data module in a ``config.yaml``; only names that may be used.

    Raises:
        MisconfigurationException: if it does not say so, or names a class of a package that the user did not name.
    """
    spec = settings_of(config.parent).get("data")
    if not isinstance(spec, dict):
        raise MisconfigurationException(
            f"{config} does not say what data the network is of: give --data, such as --data datamodules.CIFAR10"
        )
    if reason := refusal(config, spec):
        raise MisconfigurationException(reason)
    return spec


def data_of_run(config: Path) -> ImageData:
    """The data module. Raises what :func:`data_settings` does, and what its constructor does."""
    return data_module(data_settings(config))


def data_module(spec: dict[str, Any]) -> ImageData:
    """The data module of a configuration: ``class_path`` and ``init_args``."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    parsed = parser.parse_object({"data": spec})
    resolve_paths(parsed)
    return parser.instantiate(parsed).data
