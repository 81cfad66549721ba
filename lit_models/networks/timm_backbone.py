"""Any network of timm, by name."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model, load_state_dict
from torch import Tensor, nn
from typing_extensions import Self

from lit_models.errors import NetworkError
from lit_models.interfaces import Link
from lit_models.settings import keeps_arguments
from lit_models.surgery.links import links


@keeps_arguments
class TimmBackbone(nn.Module):
    """A network of ``timm.create_model`` with a classifier of its own: (N, C, H, W) images to (N, K) logits.

    In configuration files and flags ``timm:NAME`` is short for this class with that name.

    Args:
        name: one of ``timm.list_models()``, with or without the tag of its weights, or a name with ``hf-hub:`` or
            ``local-dir:``.
        num_classes: K.
        in_channels: C.
        pretrained: start from timm's weights, which it downloads, or from those in a local file: ``.safetensors``, or
            ``.pth`` with nothing but tensors and primitives. Their classifier is kept where it has ``num_classes``
            classes. A checkpoint of training has weights of its own and doesn't ask for these again.
        frozen: train the classifier alone; the rest stays as it is, in evaluation mode.
        model_args: any other argument of ``timm.create_model``, by name, as ``img_size`` or ``drop_path_rate``.

    Raises:
        NetworkError: for a name timm does not have, or weights that can't be had or don't fit; in
            ``forward``, for images of a size the network does not take.
        FileNotFoundError: where the file of weights is not there.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        in_channels: int = 3,
        pretrained: bool | str = False,
        frozen: bool = False,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if ":" not in name and not is_model(name):
            nearest = ", ".join(get_close_matches(name, timm.list_models(), 3)) or "resnet50, convnext_atto, vit_tiny_…"
            raise NetworkError(f"timm has no model {name!r}; near it are {nearest}")
        if isinstance(pretrained, str) and not Path(pretrained).is_file():
            raise FileNotFoundError(f"there is no file of weights {pretrained}")
        self.name = name
        self.frozen = frozen
        arguments = {"in_chans": in_channels, **(model_args or {})}
        try:
            if isinstance(pretrained, str):
                self.model = _from_file(name, pretrained, num_classes, arguments)
            else:
                self.model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)
        except Exception as error:
            if not pretrained:
                raise
            raise NetworkError(_no_weights(name, pretrained, error)) from error
        if frozen:
            self.model.requires_grad_(False)
            for classifier in self._classifiers():
                classifier.requires_grad_(True)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        try:
            return self.model(images)
        except AssertionError as error:  # so timm says that a transformer is of another image size
            raise NetworkError(
                f"{self.name} does not take these images: {error} Change --data.image_size, or give the network's"
                " model_args an img_size."
            ) from error

    def links(self) -> list[Link]:
        """Those of timm's network, where it can be taken apart: see :func:`lit_models.surgery.links.links`."""
        return [replace(link, name=f"model.{link.name}") for link in links(self.model)]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def _classifiers(self) -> tuple[nn.Module, ...]:
        """Distilled transformers have two."""
        classifier = self.model.get_classifier()  # type: ignore[operator]
        return classifier if isinstance(classifier, tuple) else (classifier,)


def _from_file(name: str, path: str, num_classes: int, arguments: dict[str, Any]) -> nn.Module:
    """The network with the weights of the file, all of them but maybe the classifier's."""
    weights = load_state_dict(path)
    # With another number of classes than that of the weights, timm would put up with any that are missing.
    names: Any = getattr(get_pretrained_cfg(name), "classifier", None)
    weight = weights.get(f"{names[0] if isinstance(names, tuple) else names}.weight")
    classes = 0 if weight is None else len(weight)
    overlay = {"state_dict": weights, "num_classes": classes}
    model = timm.create_model(name, True, pretrained_cfg_overlay=overlay, num_classes=classes, **arguments)
    if classes != num_classes:
        model.reset_classifier(num_classes)  # type: ignore[operator]
    return model


def _no_weights(name: str, pretrained: bool | str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[:2]
    if isinstance(pretrained, str):
        return f"{pretrained} does not hold weights of {name}: {' '.join(reason)}"
    return (
        f"timm's weights of {name} can't be had: {' '.join(reason)} Where there is no network, give a local file as"
        " --model.net.pretrained"
    )
