"""A backbone without its classifier, parts of which may be frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from lit_models.errors import NetworkError
from lit_models.freezing import Norm, check_statistics, freeze, parameters_of_maps
from lit_models.interfaces import Backbone
from lit_models.networks.timm_layers import layers_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self


class Trunk(nn.Module):
    """A backbone that hands out its feature maps: (N, C, H, W) -> maps, finest first.

    What takes no part in the maps, such as the classifier, is removed.

    Args:
        backbone: The network; see :class:`~lit_models.interfaces.Backbone`.
        frozen_stages: Everything that this many of the finest maps depend on is not trained, and its batch
            normalisation stays as it is.
        norm: Of all the other stages.

    Raises:
        NetworkError: For a network that hands out no maps, and more frozen stages than it has maps.
    """

    def __init__(self, backbone: nn.Module, frozen_stages: int = 0, norm: Norm = "train") -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise NetworkError(
                f"{type(backbone).__name__} is no backbone: it needs the methods feature_maps and dilate, and"
                " feature_channels and feature_strides"
            )
        count = len(backbone.feature_strides)
        self.net: nn.Module = backbone
        self.frozen_stages = frozen_stages
        self.norm = norm
        _keep_only(self.net, parameters_of_maps(self.net, count))
        self._fixed = freeze(self.net, frozen_stages, norm)
        self.train()

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each map, finest first."""
        return self.net.feature_channels  # type: ignore[return-value]

    @property
    def strides(self) -> tuple[int, ...]:
        """Of each map, in pixels of the image."""
        return self.net.feature_strides  # type: ignore[return-value]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.net.feature_maps(images)  # type: ignore[operator]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._fixed:
            module.eval()
        return self

    def check_trained(self) -> None:
        """Raises ``NetworkError`` where statistics are kept that no image has been through.

        Normalisation with mean 0 and variance 1 is none: a network of random weights can't be trained with it.
        """
        check_statistics(self._fixed, self.norm)


class OnTrunk(nn.Module):
    """A network on a backbone."""

    backbone: Trunk

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The groups of layers of the backbone, such as its stages, and then one of everything else; never finer.

        Raises:
            NetworkError: For a backbone that does not number its layers.
        """
        return layers_below("backbone.net", self.backbone.net, coarse=True)


def _keep_only(net: nn.Module, used: set[int]) -> None:
    """Replace the modules none of whose parameters are ``used`` by the identity."""
    for name, child in list(net.named_children()):
        parameters = list(child.parameters())
        if parameters and not any(id(parameter) in used for parameter in parameters):
            setattr(net, name, nn.Identity())
        else:
            _keep_only(child, used)


def detached_last_stage(trunk: Trunk) -> nn.Module:
    """Take the last stage out of a trunk, which then ends one map earlier; for heads that apply it to regions.

    Raises:
        NetworkError: For a backbone whose stages are not modules of their own, as those of our ResNets are.
    """
    stages = getattr(trunk.net, "stages", None)
    if not isinstance(stages, list) or getattr(trunk.net, "preactivation", False):
        raise NetworkError(
            f"the last stage of a {type(trunk.net).__name__} can't be used as a head: take a ResNet without"
            " preactivation, or a neck: fpn"
        )
    stage = trunk.net.get_submodule(stages[-1])
    delattr(trunk.net, stages.pop())
    trunk.net.feature_channels = trunk.net.feature_channels[:-1]  # type: ignore[index]
    return stage
