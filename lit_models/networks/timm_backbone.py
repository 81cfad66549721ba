"""Any network of timm, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import timm
from timm.models import get_pretrained_cfg, is_model, load_state_dict
from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.names import nearest
from lit_models.networks.timm_layers import layers_below
from lit_models.settings import keeps_arguments
from lit_models.weights import weights_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


@keeps_arguments
class TimmBackbone(nn.Module):
    """A network of ``timm.create_model`` with a classifier of its own: (N, C, H, W) images to (N, K) logits.

    In configuration files and flags ``timm:NAME`` is short for this class with that name.

    Args:
        name: A name of ``timm.list_models()``, with or without the tag of its weights, or a name with ``hf-hub:`` or
            ``local-dir:``.
        num_classes: K, the number of logits.
        in_channels: Channels of the images.
        pretrained: Start from timm's weights, which it downloads, or from those in a local file: ``.safetensors``, or
            ``.pth`` with nothing but tensors and primitives. Their classifier is kept where it has ``num_classes``
            classes. A checkpoint of training has weights of its own and doesn't ask for these again.
        frozen: Train the classifier alone; the rest stays as it is, in evaluation mode.
        model_args: Any other argument of ``timm.create_model``, by name, as ``img_size`` or ``drop_path_rate``.

    Raises:
        NetworkError: For a name timm does not have, or weights that can't be downloaded; in ``forward`` and
            ``feature_maps``, for images of a size the network does not take.
        CheckpointError: For a file that does not hold weights of the network.
        FileNotFoundError: If the file of weights does not exist.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        in_channels: int = 3,
        pretrained: bool | Annotated[str, Path] = False,
        frozen: bool = False,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if ":" not in name and not is_model(name):
            hint = nearest(name, timm.list_models(), otherwise="resnet50, convnext_atto, vit_tiny_patch16_224")
            raise NetworkError(f"timm has no model {name!r}; near it are {hint}")
        self.name = name
        self.frozen = frozen
        self.model_args = model_args or {}
        arguments = {"in_chans": in_channels, **self.model_args}
        if isinstance(pretrained, str):
            with weights_file(pretrained, name):
                self.model = _from_file(name, pretrained, num_classes, arguments)
        elif pretrained:
            self.model = _from_timm(name, num_classes, arguments)
        else:
            self.model = timm.create_model(name, num_classes=num_classes, **arguments)
        if frozen:
            self.model.requires_grad_(False)
            self.get_classifier().requires_grad_(True)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        return self._shown(self.model, images)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) -> the last map of each resolution, as timm's ``forward_intermediates`` hands them out."""
        maps = self._shown(self.model.forward_intermediates, images, intermediates_only=True)
        return tuple(maps[index] for index in self._last_of_each_stride())

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Of the last map of each resolution."""
        return tuple(self._feature_info[index]["num_chs"] for index in self._last_of_each_stride())

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Of the last map of each resolution."""
        return tuple(self._feature_info[index]["reduction"] for index in self._last_of_each_stride())

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """timm's numbers of the layers; see :func:`~lit_models.networks.timm_layers.layers_below`."""
        return layers_below("model", self.model, coarse)

    def dilate(self, output_stride: int) -> None:
        """Check that the network was built with this stride: timm dilates where it builds.

        Raises:
            NetworkError: If it was not.
        """
        if self.feature_strides[-1] > output_stride:
            raise NetworkError(
                f"timm dilates a network where it builds it: give {self.name} the model_args output_stride:"
                f" {output_stride}"
            )

    @property
    def _feature_info(self) -> list[dict[str, Any]]:
        if not hasattr(self.model, "forward_intermediates"):
            raise NetworkError(f"timm hands out no maps of {self.name}; take a network with forward_intermediates")
        return list(self.model.feature_info)  # type: ignore[arg-type]

    def _last_of_each_stride(self) -> list[int]:
        """Positions among the maps; a stage of a dilated network repeats the stride of the one before."""
        strides = [info["reduction"] for info in self._feature_info]
        dilated = "output_stride" in self.model_args
        return [i for i, stride in enumerate(strides) if dilated or [*strides[i + 1 :], None][0] != stride]

    def _shown(self, part: Any, images: Tensor, **arguments: Any) -> Any:
        """What this part of timm's network makes of the images."""
        try:
            return part(images, **arguments)
        except AssertionError as error:  # so timm says that a transformer is of another image size
            raise NetworkError(
                f"{self.name} does not take these images: {error} Change --data.image_size, or give the network's"
                " model_args an img_size, or dynamic_img_size: true for images of any size."
            ) from error

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def get_classifier(self) -> nn.Module:
        """The last layer; of a distilled transformer both of them."""
        classifier = self.model.get_classifier()  # type: ignore[operator]
        return nn.ModuleList(classifier) if isinstance(classifier, tuple) else classifier


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


def _from_timm(name: str, num_classes: int, arguments: dict[str, Any]) -> nn.Module:
    """The network with the weights that timm downloads."""
    try:
        return timm.create_model(name, pretrained=True, num_classes=num_classes, **arguments)
    except Exception as error:
        reason = " ".join(str(error).strip().splitlines()[:2])
        raise NetworkError(
            f"timm's weights of {name} can't be had: {reason} Where there is no network, give a local file as"
            " --model.net.pretrained"
        ) from error
