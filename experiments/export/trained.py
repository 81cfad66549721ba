"""A trained classifier, and what its run did to an image before the network saw it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from datamodules.pipeline.augment import normalise
from datamodules.pipeline.geometry import Geometry
from datamodules.pipeline.image_data import ImageData
from experiments.cli.data_of_run import data_settings
from experiments.cli.trusted_names import refusal
from experiments.runs.directory import run_config
from lit_models import CheckpointError, ImageClassifier, load_checkpoint
from lit_models.checkpoints import checkpoint_file, read_checkpoint


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode on the CPU, and what it expects of images."""

    checkpoint: Path
    config: Path | None
    """``config.yaml`` of the run, if the checkpoint lies in its directory."""
    net: nn.Module
    class_names: list[str]
    geometry: Geometry
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def images(self, raw: Tensor) -> Tensor:
        """uint8 (N, H, W, C), as ``geometry`` gives them, to float32 (N, C, H, W) as evaluation normalises them."""
        return normalise(raw, self.mean, self.std).permute(0, 3, 1, 2)


def open_trained(source: Path, data: ImageData | None = None) -> Trained:
    """The classifier of a run (its best checkpoint) or a checkpoint.

    Args:
        source: run directory or checkpoint.
        data: data module that says how images are prepared (default: the run's, which need not be there).

    Raises:
        CheckpointError, FileNotFoundError, MisconfigurationException: if there is none, if it is no classifier, or if
            nobody knows how images are prepared for it.
    """
    source = source.expanduser()
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: give a run directory, a checkpoint or pretrained:NAME")
    checkpoint = checkpoint_file(source)
    hparams = read_checkpoint(checkpoint).get("hyper_parameters", {})
    if reason := refusal(checkpoint, hparams):
        raise CheckpointError(reason)
    model = load_checkpoint(checkpoint)
    if not isinstance(model, ImageClassifier):
        raise CheckpointError(f"{checkpoint} is of a {type(model).__name__}; this command is for classifiers")
    config = run_config(checkpoint)
    kind, settings = _prepared_by(checkpoint, config, data)
    facts = {name: hparams.get(name) for name in ("image_size", "mean", "std", "class_names")}
    if data is not None:
        facts |= {name: getattr(data, name) for name in facts}
    if missing := [name for name in ("image_size", "mean", "std") if not facts[name]]:
        raise MisconfigurationException(
            f"{checkpoint} does not say the {' and '.join(missing)} of its images: give --data, the data module that it"
            " was trained on"
        )
    if settings.get("pixel_mean"):
        raise MisconfigurationException(
            f"{checkpoint} was trained with pixel_mean, which subtracts an image that no checkpoint holds: evaluate it"
            " with fathom test, or train without"
        )
    return Trained(
        checkpoint,
        config,
        model.net,
        list(facts["class_names"] or map(str, range(model.num_classes))),
        kind.geometry({**settings, "image_size": facts["image_size"]}),
        tuple(facts["mean"]),
        tuple(facts["std"]),
    )


def _prepared_by(checkpoint: Path, config: Path | None, data: ImageData | None) -> tuple[type[ImageData], Any]:
    """Class of a data module and its settings."""
    if data is not None:
        return type(data), vars(data)
    if config is None:
        raise MisconfigurationException(
            f"{checkpoint} does not lie in the directory of its run, which would say how its images are prepared: give"
            " --data, such as --data Photos --data.root FOLDER"
        )
    spec = data_settings(config)
    return resolve_name(spec["class_path"]), spec.get("init_args", {})
