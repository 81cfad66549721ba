"""What the command line asks of a module and of a data module, and what it hands from the one to the other.

Any ``LightningModule`` can be trained, tested and resumed. Its constructor, and that of a network among its arguments,
get those facts about the data for which they have a parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeGuard, runtime_checkable

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

from experiments.errors import UsageError
from lit_models.tasks.check_images import check_batches_of_one, check_images

FACTS = ("num_classes", "in_channels", "image_size", "mean", "std", "class_names")
"""The attributes of a data module that become constructor arguments."""
TARGETS = ("model.init_args", "model.init_args.net.init_args", "model.init_args.net.init_args.backbone.init_args")


class Classifier(Protocol):
    """A module around a network that maps images (N, C, H, W) to logits (N, K).

    Its network is tried on one image before anything is trained.
    """

    net: nn.Module


def is_classifier(module: Any) -> TypeGuard[Classifier]:
    """Whether ``module`` has such a network; from Python 3.12 on ``isinstance`` does not see the parts of a module."""
    return isinstance(getattr(module, "net", None), nn.Module)


@runtime_checkable
class ChecksImages(Protocol):
    """A module that tries its network on an image by itself, as one whose network returns no logits (N, K)."""

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ``MisconfigurationException`` where it can't take an image of this shape (C, H, W)."""


@runtime_checkable
class ImageFacts(Protocol):
    """A data module that says which images its batches have."""

    num_classes: int
    in_channels: int
    image_size: int
    """Height and width in pixels."""


def link_facts(parser: LightningArgumentParser) -> None:
    """Hand ``FACTS`` over when the classes are instantiated; jsonargparse leaves out those without a parameter."""
    for target in TARGETS:
        for fact in FACTS:
            parser.link_arguments(f"data.{fact}", f"{target}.{fact}", apply_on="instantiate")


def check_network(module: Any, data: Any, trains: bool) -> None:
    """Try the network on one image of the data, if the two are described as above.

    Args:
        module: around the network.
        data: that it is evaluated on or, if it ``trains``, trained on.
        trains: try it as in training too, if its batches are of one image.

    Raises:
        MisconfigurationException: see :mod:`lit_models.tasks.check_images`.
    """
    if not isinstance(data, ImageFacts):
        return
    shape = (data.in_channels, data.image_size, data.image_size)
    if isinstance(module, ChecksImages):
        module.check_images(shape)
    elif is_classifier(module):
        check_images(module.net, shape, data.num_classes)
        if trains and getattr(data, "batch_size", None) == 1:
            check_batches_of_one(module.net, shape)


def accepted_facts(config: Namespace) -> Iterator[str]:
    """The settings of a parsed configuration that a fact about the data fills."""
    for target in TARGETS:
        for fact in FACTS:
            if f"{target}.{fact}" in config:
                yield f"{target}.{fact}"


def check_given_facts(given: dict[str, Any], data: Any) -> None:
    """Refuse a flag that says something about the data which these contradict: what they say is what counts.

    Args:
        given: flags of facts about the data, without dashes, with their values.
        data: that the module is evaluated or trained on.

    Raises:
        UsageError: names the flag and both values.
    """
    for flag, value in given.items():
        fact = getattr(data, flag.rpartition(".")[2], None)
        if fact is not None and _listed(value) != _listed(fact):
            raise UsageError(f"--{flag} is {value}, and the data have {fact}: leave the flag out, as the data set it")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
