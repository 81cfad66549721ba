"""Private names of other packages stand in one module of each room, which its own tests compare with what is installed.

A release may rename them without a word. Then one sentence says where, and nothing else has to be searched.
"""

import ast
import inspect
import re
from importlib import import_module
from importlib.metadata import version

from packaging.requirements import Requirement

ROOMS = ("callbacks", "datamodules", "experiments", "lit_models")
FENCE = "internals.py"
OF_NAMED_TUPLES = {"_asdict", "_fields", "_replace"}


def modules(repository):
    for room in ROOMS:
        yield from sorted((repository / room).rglob("*.py"))


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def own_names(tree):
    """Private names that a module makes: functions, classes, variables, and attributes of ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def foreign_names(tree, own):
    """Private modules and names that are imported from elsewhere, and private attributes of anything but ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(ROOMS):
            yield from (part for part in node.module.split(".") if is_private(part))
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split(".") if is_private(part))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            yield from {node.attr} - own - OF_NAMED_TUPLES


def is_own(node):
    return (isinstance(node, ast.Name) and node.id in ("self", "cls")) or is_super(node)


def is_super(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def test_private_names_of_other_packages_are_fenced(repository):
    trees = {path: ast.parse(path.read_text()) for path in modules(repository)}
    assert len(trees) > 100
    own = {name for path, tree in trees.items() if path.name != FENCE for name in own_names(tree)}
    found = {path: names for path, tree in trees.items() if (names := set(foreign_names(tree, own)))}
    outside = {str(path.relative_to(repository)): names for path, names in found.items() if path.name != FENCE}
    assert not outside, f"private names of other packages belong into the {FENCE} of their room: {outside}"
    assert found, "the search finds nothing"
    fenced = [path.relative_to(repository).parts[0] for path in trees if path.name == FENCE]
    assert len(fenced) == len(set(fenced)), "a room has one fence"


def classes(repository):
    """Every class of the rooms, with its room."""
    for path in modules(repository):
        if path.name not in ("__init__.py", "__main__.py"):
            name = ".".join(path.relative_to(repository).with_suffix("").parts)
            for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
                if kind.__module__ == name:
                    yield name.partition(".")[0], kind


def private_names(kind):
    """Methods that the source of a class defines, and attributes of ``self`` that it reads or writes."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind)))
    except (OSError, TypeError):  # one that has no source, such as those made by typing
        return set()
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}
    return set(filter(is_private, names))


def test_private_names_of_base_classes_are_listed(repository):
    """What a class shares with a base of another package, on purpose or by chance, stands in the fence of its room."""
    shared = {room: {} for room in ROOMS}
    for room, kind in classes(repository):
        ours = private_names(kind)
        foreign = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in (*ROOMS, "typing")]
        if names := ours & set().union(*map(private_names, foreign if ours else [])):
            shared[room][kind.__name__] = names
    for room in ROOMS:
        fences = list((repository / room).rglob(FENCE))
        modules = [import_module(".".join(path.relative_to(repository).with_suffix("").parts)) for path in fences]
        listed = {name: names for module in modules for name, names in module.OVERRIDDEN.items()}
        assert shared[room] == listed, f"{room} shares other private names with base classes than its fence lists"


def test_releases_that_were_not_seen_are_kept_out(repository):
    """A fence says what it was seen with, and pyproject.toml ends below the next release that may break it."""
    requirements = {requirement.name: requirement for requirement in map(Requirement, dependencies(repository))}
    for name in ("lightning", "torch", "timm", "jsonargparse", "torchmetrics"):
        assert requirements[name].specifier.contains(version(name)), f"{name} {version(name)} was never tried"
        assert any(bound.operator == "<" for bound in requirements[name].specifier), f"{name} has no upper bound"


def dependencies(repository):
    text = (repository / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    return re.findall(r'"([^"]+)"', listed)
