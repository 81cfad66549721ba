"""Nested values that came from a file, compared with what belongs there.

A schema is

- a dict of schemas by name: a name that ends in ``?`` may be missing, ``"*"`` is for all others;
- a list of one schema, that of each item;
- a :class:`Rule`, of a value that is none of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_models.errors import CheckpointError

MOST_LEVELS, MOST_VALUES = 50, 500_000
"""Of nesting, and of values where what is shared counts each time it is reached."""


class SchemaError(CheckpointError):
    """Says where in a checkpoint there is what, and what belongs there; who knows the file adds its name."""


class Rule(NamedTuple):
    """What belongs in a place, in words, and whether a value is that."""

    words: str
    holds: Callable[[Any], bool]


def check(value: Any, schema: Any, place: str = "") -> None:
    """Compare ``value``, which :func:`check_values` has seen, with a schema.

    Raises:
        SchemaError: for the first difference.
    """
    if isinstance(schema, Rule):
        if not schema.holds(value):
            raise SchemaError(f"{place} is {shown(value)}, where {schema.words} belongs")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise SchemaError(f"{place} is {shown(value)}, where a list belongs")
        for i, item in enumerate(value):
            check(item, schema[0], f"{place}[{i}]")
    else:
        if not isinstance(value, dict):
            raise SchemaError(f"{place or 'it'} is {shown(value)}, where values by name belong")
        known = {name.removesuffix("?") for name in schema}
        for name in schema:
            if name != "*" and not name.endswith("?") and name not in value:
                raise SchemaError(f"{_inside(place, name)} is missing")
        for name, item in value.items():
            if not isinstance(name, str):
                raise SchemaError(f"{place or 'it'} has {shown(name)} as a name")
            inner = schema.get(name, schema.get(f"{name}?")) if name in known else schema.get("*")
            if inner is not None:
                check(item, inner, _inside(place, name))


def check_values(value: Any) -> None:
    """Let pass primitives, lists and dicts of a finite size, and tensors that hold all their elements on the CPU.

    No tensor is read: one that is expanded from a few bytes could have any number of elements.

    Raises:
        SchemaError: for the first other value.
    """
    for number, (place, level, item) in enumerate(_walk(value)):
        if level > MOST_LEVELS or number > MOST_VALUES:
            raise SchemaError(f"{place[:60]}… is nested too deeply, or contains itself")
        if isinstance(item, Tensor):
            if flaw := _flaw(item):
                raise SchemaError(f"{place} is {flaw}")
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            raise SchemaError(f"{place} is a whole number of more than 64 bits")
        elif not isinstance(item, _PLAIN):
            raise SchemaError(f"{place} is a {type(item).__name__}, where tensors and primitives belong")


_PLAIN = (type(None), bool, int, float, complex, str, bytes, dict, list, tuple, set, torch.dtype, torch.device)


def _walk(value: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value with its place and level; without recursion, since nobody knows how deep it goes."""
    todo = [("", 0, value)]
    while todo:
        place, level, item = todo.pop()
        yield place, level, item
        if isinstance(item, dict):
            todo += [(_inside(place, name), level + 1, inner) for name, inner in item.items()]
            todo += [(f"{place} (a name)", level + 1, name) for name in item if not isinstance(name, str)]
        elif isinstance(item, list | tuple | set):
            todo += [(f"{place}[{i}]", level + 1, inner) for i, inner in enumerate(item)]


def _flaw(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested or tensor.is_quantized:
        return f"a tensor of the kind {type(tensor).__name__}"
    if tensor.layout != torch.strided:
        return f"a tensor in the layout {tensor.layout}, where a dense one belongs"
    if tensor.device.type != "cpu":
        return f"a tensor on the device {tensor.device}, which has no values"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"a tensor of {tensor.numel()} elements, which the file does not hold"
    return None


def _inside(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, dict | list | tuple | set):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_number(value: Any) -> bool:
    """A finite one, as a primitive or as a tensor of one element."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and bool(value.isfinite())
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and PurePath(value).name == value and "\0" not in value and value != ".."


def _is_inside(value: Any) -> bool:
    return not isinstance(value, str) or ".." not in PurePath(value).parts


def _texts(value: Any) -> Iterator[Any]:
    for _, _, item in _walk(value):
        yield item
        if isinstance(item, dict):
            yield from item


def _names(value: Any) -> Iterator[Any]:
    for _, _, item in _walk(value):
        if isinstance(item, dict):
            yield from item


def _scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()


TEXT = Rule("a text", lambda value: isinstance(value, str))
BOOL = Rule("true or false", lambda value: isinstance(value, bool))
COUNT = Rule("a count, 0 or more", _is_count)
NUMBER = Rule("a finite number", is_number)
SCALAR = Rule("a tensor of one number", _scalar)
SCALAR_OR_NONE = Rule("a tensor of one number or nothing", lambda value: value is None or _scalar(value))
WEIGHT = Rule("a tensor of real numbers", lambda value: isinstance(value, Tensor) and not value.is_complex())
FILE_NAME = Rule("the name of a file in checkpoints/", lambda value: value == "" or _is_file_name(value))
INSIDE = Rule("a state without paths that lead out of the run", lambda value: all(map(_is_inside, _texts(value))))
SETTINGS = Rule("settings by name", lambda value: all(isinstance(name, str) for name in _names(value)))
ANYTHING = Rule("a value", lambda value: True)
NOTHING = Rule("nothing", lambda value: False)
VERSION = Rule(
    "a version of Lightning from 2 on",
    lambda value: (
        isinstance(value, str) and re.fullmatch(r"[2-9]\d?(\.\d{1,6}){1,3}(\.?[a-z]{1,4}\d{1,9})?", value) is not None
    ),
)
LIGHTNINGS_INSTANTIATOR = Rule("Lightning's", lambda value: value == "lightning.pytorch.cli.instantiate_module")
