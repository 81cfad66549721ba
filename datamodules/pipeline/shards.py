"""What ``fathom shard`` writes beside the images, and the check that it is no more than that."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

import fsspec
from lightning.pytorch.utilities.exceptions import MisconfigurationException

DESCRIPTION = "description.json"
PARTS = ("train", "val", "test")
SAMPLE = {"image": "bytes", "label": "int", "index": "int", "name": "bytes"}
"""Fields of a sample, and the names of litdata's serializers for them."""


def read_description(root: str) -> dict[str, Any]:
    """The description of the shards in ``root``.

    Raises:
        FileNotFoundError: there is none.
        MisconfigurationException: it is not what ``fathom shard`` writes.
    """
    path = f"{root}/{DESCRIPTION}"
    try:
        description = _read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{root} has no {DESCRIPTION}; write the shards with `fathom shard SOURCE {root}`."
        ) from error
    if not _is_description(description):
        raise MisconfigurationException(f"{path} is not what `fathom shard` writes: write the shards again.")
    return description


def _is_description(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    names, images = content.get("class_names"), content.get("images")
    mean, std = content.get("mean"), content.get("std")
    return (
        isinstance(names, list)
        and len(names) > 0
        and all(isinstance(name, str) for name in names)
        and isinstance(images, dict)
        and set(images) == set(PARTS)
        and all(type(count) is int and count >= 0 for count in images.values())
        and images["train"] > 0
        and _are_numbers(mean)
        and _are_numbers(std)
        and min(std) > 0
    )


def _are_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(value, float) for value in values)


def check_index(folder: str) -> None:
    """Refuse shards of any other format than that of ``fathom shard``: litdata unpickles what its index says is
    pickled, and that runs code.

    Raises:
        FileNotFoundError: there is no index.
        MisconfigurationException: it names another format, or a file elsewhere.
    """
    path = f"{folder}/index.json"
    index = _read(path)
    try:
        config = index["config"]
        _, spec = json.loads(config["data_spec"])
        leaves: list[Any] = [{"type": None, "context": None, "children_spec": []}] * len(SAMPLE)
        fields = {"type": "builtins.dict", "context": json.dumps(list(SAMPLE)), "children_spec": leaves}
        harmless = (
            config["data_format"] == list(SAMPLE.values())
            and config["item_loader"] == "PyTreeLoader"
            and not config.get("compression")
            and not config.get("encryption")
            and spec == fields
            and all(chunk["filename"].strip(".") and "/" not in chunk["filename"] for chunk in index["chunks"])
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        harmless = False
    if not harmless:
        raise MisconfigurationException(
            f"{path} is not of the format that `fathom shard` writes, and opening it could run code: it is not opened;"
            " write the shards again"
        )


def _read(path: str) -> Any:
    with fsspec.open(path, "rb") as file:
        content = file.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise MisconfigurationException(f"{path} is no JSON file ({error}): write the shards again.") from error
