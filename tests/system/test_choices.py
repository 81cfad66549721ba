"""A choice that does not exist is refused where Python builds an object, and not taken for another one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import timm
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import callbacks
import datamodules
import lit_models
from datamodules.pipeline.in_memory import InMemoryImages
from lit_models.tasks.average_precision import VOCAveragePrecision
from lit_models.tasks.task import Task

NET = {"net": lit_models.CIFARVGG(width=1)}
ON_BACKBONE = {"backbone": lit_models.CIFARResNet(8, width=1), "num_classes": 2}
ARGUMENTS: dict[Any, dict[str, Any]] = {
    lit_models.ResNet: {"depth": 18},
    lit_models.CIFARResNet: {"depth": 8},
    lit_models.AnnealedCIFARResNet: {"depth": 8},
    lit_models.GoogLeNet: {},
    lit_models.VanillaNet: {"num_classes": 2},
    lit_models.FasterRCNN: ON_BACKBONE,
    lit_models.MaskRCNN: ON_BACKBONE,
    lit_models.RetinaNet: ON_BACKBONE,
    lit_models.FCN: ON_BACKBONE,
    lit_models.ImageClassifier: {**NET, "num_classes": 10},
    lit_models.Distillation: {**NET, "num_classes": 10},
    lit_models.Detector: {**NET, "num_classes": 10},
    Task: NET,
    VOCAveragePrecision: {"num_classes": 2},
    callbacks.ActivationAnnealing: {},
    callbacks.StochasticDepth: {},
    datamodules.Photos: {"root": "nowhere"},
    InMemoryImages: {},
}
IN_SETUP = {callbacks.FrozenStages}


def choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield annotation
    else:
        for part in get_args(annotation):
            yield from choices(part)


def names(kind: Any) -> list[str]:
    """Parameters of a constructor that are choices."""
    return [name for name, annotation in get_type_hints(kind.__init__).items() if any(choices(annotation))]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ARGUMENTS for name in names(kind)])
def test_a_constructor_refuses_what_is_no_choice(kind: Any, name: str) -> None:
    kind, arguments = (datamodules.Digits, {}) if kind is InMemoryImages else (kind, ARGUMENTS[kind])
    with pytest.raises((lit_models.NetworkError, MisconfigurationException), match=f"^{name} is 'other'; give one of"):
        kind(**arguments, **{name: "other"})


def test_no_class_is_forgotten() -> None:
    public = [getattr(room, name) for room in (callbacks, datamodules, lit_models) for name in room.__all__]
    assert {kind for kind in public if inspect.isclass(kind) and names(kind)} <= ARGUMENTS.keys() | IN_SETUP


def test_other_ways_to_choose_are_checked_too() -> None:
    with pytest.raises(lit_models.NetworkError, match="shortcut is 'a'; give one of A, B, C, none"):
        timm.create_model("resnet20_cifar", shortcut="a")
    with pytest.raises(MisconfigurationException, match="part is 'validation'; give one of train, val, test"):
        next(datamodules.Digits().batches("validation"))  # type: ignore[arg-type]
