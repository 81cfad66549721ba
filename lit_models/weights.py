"""Files with the weights of a library's network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from timm.models import load_state_dict
from torch import nn

from lit_models.errors import CheckpointError


def load_weights(net: nn.Module, path: str | Path, name: str) -> None:
    """Fill ``net`` with the weights of a file: ``.safetensors``, or anything of tensors and primitives alone.

    Args:
        net: The network, all of whose weights the file has to hold.
        path: The file.
        name: What the network is called in an error.

    Raises:
        CheckpointError: If the file does not hold the weights of the network.
        FileNotFoundError: If there is no file.
    """
    with weights_file(path, name):
        net.load_state_dict(load_state_dict(str(path), weights_only=True))


@contextmanager
def weights_file(path: str | Path, name: str) -> Iterator[None]:
    """A context that reads ``path`` as weights of ``name``; whatever fails in it is said in one sentence.

    Raises:
        CheckpointError: If the file does not hold the weights of the network.
        FileNotFoundError: If there is no file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights {path}")
    try:
        yield
    except Exception as error:  # a file of another kind makes the parsers fail in any way
        *_, reason = str(error).strip().splitlines() or [repr(error)]
        reason = shorten(reason.strip(), 150, placeholder=" …")
        raise CheckpointError(f"{path} does not hold the weights of {name}: {reason}") from error
