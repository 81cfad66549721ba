"""Objects as settings: a checkpoint or a YAML file describes a network by its class and constructor arguments.

A checkpoint holds tensors and primitives alone, so an object that is to be described in one remembers how it was made.
"""

from __future__ import annotations

import sys
from functools import wraps
from inspect import Parameter, isclass, isfunction, signature
from operator import attrgetter
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
"""What Lightning builds a LightningModule with, from the settings in a checkpoint."""


def keeps_arguments(kind: type[T]) -> type[T]:
    """Class decorator: instances remember the arguments of their constructor, for :func:`as_setting`.

    A subclass that has a constructor of its own needs the decorator again. What is decorated may be built from the
    settings in a checkpoint, with any arguments.
    """
    construct = kind.__init__
    parameters = signature(construct).parameters

    @wraps(construct)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        construct(self, *args, **kwargs)
        if type(self).__init__ is __init__:
            self.constructor_arguments = {}
            for name, value in list(signature(construct).bind(self, *args, **kwargs).arguments.items())[1:]:
                many = parameters[name].kind is Parameter.VAR_KEYWORD
                self.constructor_arguments |= value if many else {name: value}

    __init__.keeps_arguments = True  # type: ignore[attr-defined]
    kind.__init__ = __init__  # type: ignore[method-assign]
    return kind


def may_be_described(kind: Any) -> bool:
    """Whether ``kind`` is a class that may be built from settings in a file: a module, or one that keeps arguments."""
    return isclass(kind) and (issubclass(kind, nn.Module) or hasattr(kind.__init__, "keeps_arguments"))


def as_setting(value: Any) -> Any:
    """``value`` in primitives, as a YAML file has it.

    Classes and functions become their import paths, and objects of classes with :func:`keeps_arguments` become
    ``{class_path, init_args}``.

    Raises:
        TypeError: For anything else, as a lambda, or an object of another class.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(as_setting, value))
    if isinstance(value, dict):
        return {name: as_setting(item) for name, item in value.items()}
    if isclass(value) or isfunction(value):
        return import_path(value)
    arguments = getattr(value, "constructor_arguments", None)
    if arguments is None:
        raise TypeError(f"a {type(value).__name__} does not know how it was made")
    return {"class_path": import_path(type(value)), "init_args": as_setting(arguments)}


def import_path(value: Any) -> str:
    """``module.name`` of a class or function.

    Raises:
        TypeError: For one that can't be imported, as it was made inside a function.
    """
    try:
        found = attrgetter(value.__qualname__)(sys.modules[value.__module__])
    except (AttributeError, KeyError):
        found = None
    if found is not value:
        raise TypeError(f"{value.__qualname__} can't be imported: define it at the top of a module")
    return f"{value.__module__}.{value.__qualname__}"


def name_of(function: Any) -> str:
    """The name of a function or of the class of an object; a text is its own name."""
    return function if isinstance(function, str) else getattr(function, "__name__", type(function).__name__)
