"""Weights that a network starts from: of a run, a checkpoint, or a file of another project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from lit_models.checkpoints import checkpoint_file, read_checkpoint
from lit_models.errors import CheckpointError
from lit_models.networks.vanillanet import VanillaNet
from lit_models.tasks.official_vanillanet import official_state
from lit_models.weights import weights_file


def start_from(net: nn.Module, path: str | Path) -> None:
    """Fill ``net`` with weights; the backbone, if it is a detector or segmenter around one.

    A classifier of another number of classes stays new, and that is said. Filters of the first convolution for another
    number of channels are summed up or repeated, as timm does it. A VanillaNet takes the files of its authors, too.

    Args:
        net: The network.
        path: A run directory (its best checkpoint, or the last if there is none), a checkpoint, or a file of tensors
            alone under the names of the network.

    Raises:
        CheckpointError: For a file that does not hold all weights of the network but the classifier's.
        FileNotFoundError: If there is no such file.
    """
    trunk = getattr(getattr(net, "backbone", None), "net", None)
    target: Any = net if trunk is None else trunk
    file = checkpoint_file(path)
    state = _weights(file, target)
    own = target.state_dict()
    head = _head_names(target)
    new_head = trunk is None and any(name not in state or state[name].shape != own[name].shape for name in head)
    taken: dict[str, Tensor] = {}
    for name, value in own.items():
        if new_head and name in head:
            taken[name] = value
        elif name in state:
            taken[name] = _fitting(state[name], value)
        elif name.endswith("survival_prob"):  # a library's network has none: it was trained at constant depth
            taken[name] = value
        else:
            raise CheckpointError(
                f"{file} does not hold the weights of this {type(target).__name__}: {name} is missing; give the network"
                " the arguments it was trained with"
            )
        if taken[name].shape != value.shape:
            raise CheckpointError(
                f"{file} does not fit this {type(target).__name__}: {name} is {tuple(taken[name].shape)} there and"
                f" {tuple(value.shape)} here; give the network the arguments it was trained with"
            )
    target.load_state_dict(taken)
    if new_head:
        rank_zero_info(f"The classifier is new: that of {file} has other classes.")


def _weights(file: Path, net: nn.Module) -> dict[str, Tensor]:
    if file.suffix == ".ckpt":
        state = read_checkpoint(file)["state_dict"]
        return {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}
    if isinstance(net, VanillaNet) and file.is_file() and (official := official_state(file)):
        return official
    with weights_file(file, type(net).__name__):
        return load_state_dict(str(file), weights_only=True)


def _head_names(net: Any) -> set[str]:
    """Names of the classifiers' weights: the auxiliary ones have as many classes."""
    if not hasattr(net, "get_classifier"):
        return set()
    heads = [net.get_classifier(), *(getattr(net, name) for name in getattr(net, "heads", {}).values())]
    members = {id(module) for head in heads for module in head.modules()}
    return {
        f"{prefix}.{name}"
        for prefix, module in net.named_modules()
        if id(module) in members
        for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    }


def _fitting(weight: Tensor, own: Tensor) -> Tensor:
    """Filters (C', C, k, k) for the channels that ``own`` has."""
    if weight.ndim == own.ndim == 4 and weight.shape[1] in (1, 3) and weight.shape[1] != own.shape[1]:
        return adapt_input_conv(own.shape[1], weight if weight.shape[1] == 3 else weight.expand(-1, 3, -1, -1) / 3)
    return weight
