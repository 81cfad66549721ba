"""The constructor parameters of a class, with those that its constructor hands on to its base classes."""

from __future__ import annotations

import inspect
import sys
from inspect import Parameter
from typing import Any, get_type_hints


def imported_class(class_path: str) -> type | None:
    """The class of that import path, if its module is imported."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) else None


def parameters(kind: type | None) -> dict[str, Parameter]:
    """The parameters by their names, with their types as ``annotation``, which is ``Any`` if there is none."""
    found: dict[str, Parameter] = {}
    for base in getattr(kind, "__mro__", ()):
        if constructor := vars(base).get("__init__"):
            own = list(inspect.signature(constructor).parameters.values())[1:]
            hints = _hints(constructor)
            named = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
            found = {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in named} | found
            if len(named) == len(own):
                break
    return found


def _hints(constructor: Any) -> dict[str, Any]:
    try:
        return get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):  # of a name that is imported for type checkers alone
        return {}
