"""The classifier of a checkpoint."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from lit_models.checkpoints import read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.names import class_paths, dotted_names, package
from lit_models.schema import SchemaError
from lit_models.tasks.classification import ImageClassifier


def load_checkpoint(path: str | Path, net: nn.Module | None = None) -> ImageClassifier:
    """The classifier of a checkpoint, on the CPU and in evaluation mode.

    Nothing but the path is needed for a checkpoint written from the command line, merged or not: it names its
    network. Classes outside this package must be imported before; none is imported because a file says so.

    Args:
        path: to a ``.ckpt`` file.
        net: the network, for a checkpoint of a classifier constructed in Python.

    Raises:
        CheckpointError: where the file is not a checkpoint, names a class not imported, or does not fit the network.
    """
    checkpoint = read_checkpoint(path)
    hparams = checkpoint.get("hyper_parameters", {})
    if net is None:
        if "net" not in hparams:
            raise CheckpointError(f"{path} does not say which network it is of: pass it as `net`")
        check_classes(path, hparams)
    try:
        given: dict[str, Any] = {} if net is None else {"net": net}
        model = ImageClassifier.load_from_checkpoint(path, map_location="cpu", weights_only=True, **given)
    except (RuntimeError, SchemaError) as error:
        raise CheckpointError(f"{path} does not fit the network: {str(error).splitlines()[-1].strip()}") from error
    model.hparams.update(hparams)  # the network among them, so that the model can be saved again
    return model.eval()


def check_classes(path: str | Path, hparams: dict[str, Any]) -> None:
    """Raises ``CheckpointError`` where a ``class_path`` is not that of an imported module or one of this package, or
    any other text that of something that can be imported."""
    for class_path in class_paths(hparams):
        module, _, name = class_path.rpartition(".")
        if package(module) == package(__name__):
            with suppress(ModuleNotFoundError):
                import_module(module)  # of this package: nothing foreign runs
        kind = getattr(sys.modules.get(module), name, None)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise CheckpointError(
                f"{path} asks for the class {class_path}, which is no imported nn.Module: if you trust it, import"
                f" {module} first"
            )
    # Lightning takes an instantiator of its own alone.
    settings = {name: value for name, value in hparams.items() if name != "_instantiator"}
    for name in set(dotted_names(settings)) - set(class_paths(settings)):
        if package(name) in sys.modules or find_spec(package(name)):
            raise CheckpointError(f"{path} names {name} where a setting should be: it is not of this project")
