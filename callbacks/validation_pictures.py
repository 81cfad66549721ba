"""What a detector or a segmenter sees in the same few images, epoch after epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchvision.utils import make_grid

from lit_models.instance_masks import pasted
from lit_models.pictures import draw_mask, draw_objects, pixels, write_picture


class ValidationPictures(L.Callback):
    """Draws objects or classes of pixels over the first validation images after each validation.

    The pictures are ``pictures/epoch-NNN.png`` in the run directory; Weights & Biases gets the images with its own
    overlays, which can be switched off there class by class.

    Args:
        images: how many, of the first batch.
        min_score: of a box that is drawn.

    Raises:
        MisconfigurationException: in ``setup``, for a module that is neither a detector nor a segmenter.
    """

    def __init__(self, images: int = 4, min_score: float = 0.5) -> None:
        if images < 1:
            raise MisconfigurationException(f"images is {images}; give how many to draw, at least 1")
        self.images = images
        self.min_score = min_score

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not {"mean", "std", "class_names"} <= pl_module.hparams.keys() or not hasattr(pl_module, "check_images"):
            raise MisconfigurationException(
                f"ValidationPictures draws what a Detector or a Segmenter finds, and {type(pl_module).__name__} is"
                " neither: leave the callback out"
            )

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero:
            return
        images, targets = batch
        images = images[: self.images]
        names = list(pl_module.hparams["class_names"] or map(str, range(pl_module.num_classes)))
        seen = pixels(images, pl_module.hparams["mean"], pl_module.hparams["std"])
        if isinstance(targets, dict):
            sizes = targets["sizes"][: self.images]
            with trainer.precision_plugin.val_step_context():
                detections = pl_module(images, sizes)
            found = [_above(detection, self.min_score) for detection in detections]
            drawn = [draw_objects(image, detection, names) for image, detection in zip(seen, found, strict=True)]
            overlays: dict[str, Any] = {"boxes": [_wandb_boxes(detection, names) for detection in found]}
            if "masks" in found[0]:
                classes = [_classes(detection, len(names), (seen.shape[2], seen.shape[3])) for detection in found]
                overlays["masks"] = [_wandb_mask(mask, [*names, "no object"]) for mask in classes]
        else:
            with trainer.precision_plugin.val_step_context():
                logits = pl_module(images)
            masks = logits.argmax(1).cpu()
            drawn = [draw_mask(image, mask, len(names)) for image, mask in zip(seen, masks, strict=True)]
            overlays = {"masks": [_wandb_mask(mask, names) for mask in masks]}
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        write_picture(folder / f"epoch-{trainer.current_epoch:03}.png", make_grid(torch.stack(drawn), nrow=2))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("val/pictures", [image.permute(1, 2, 0).numpy() for image in seen], **overlays)


def _above(detection: dict[str, Tensor], min_score: float) -> dict[str, Tensor]:
    kept = detection["scores"] >= min_score
    return {name: column[kept] for name, column in detection.items()}


def _classes(detection: dict[str, Tensor], nothing: int, size: tuple[int, int]) -> Tensor:
    """The class of the best object at each pixel of an image of ``size``, or ``nothing``: (H, W)."""
    classes = torch.full(size, nothing)
    masks = pasted(detection["masks"], detection["boxes"], size)
    for mask, label in zip(masks.flip(0), detection["labels"].flip(0).tolist(), strict=True):
        classes[mask] = label
    return classes


def _wandb_boxes(detection: dict[str, Tensor], names: list[str]) -> dict[str, Any]:
    columns = (detection[name].tolist() for name in ("boxes", "labels", "scores"))
    data = [
        {
            "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2},
            "domain": "pixel",
            "class_id": label,
            "box_caption": f"{names[label]} {score:.2f}",
            "scores": {"score": score},
        }
        for (x1, y1, x2, y2), label, score in zip(*columns, strict=True)
    ]
    return {"predictions": {"box_data": data, "class_labels": dict(enumerate(names))}}


def _wandb_mask(mask: Tensor, names: list[str]) -> dict[str, Any]:
    return {"predictions": {"mask_data": mask.numpy().astype("uint8"), "class_labels": dict(enumerate(names))}}
