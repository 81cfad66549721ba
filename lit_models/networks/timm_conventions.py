"""What timm asks of a network beyond what ours do on their own: its names of arguments, and the methods it calls."""

# Without postponed annotations: torch.fx puts those of ``forward`` into its graph, where TorchScript takes no texts.

from abc import ABC, abstractmethod
from contextlib import nullcontext
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from lit_models.errors import NetworkError
from lit_models.interfaces import ResidualNetwork, identity
from lit_models.internals import chosen_indices
from lit_models.networks.googlenet import GoogLeNet
from lit_models.networks.resnet import CIFARResNet
from lit_models.networks.vanillanet import VanillaNet
from lit_models.settings import keeps_arguments

if TYPE_CHECKING:
    from typing_extensions import Self

Stage = dict[str, Any]
"""The last module before the maps shrink: its name, its channels, and how many pixels of the image one of its has."""


@keeps_arguments
class TimmConventions(nn.Module, ABC):
    """Stands before one of our networks among the base classes, and gives it timm's interface.

    Args:
        num_classes: K, the number of logits; 0 leaves the classifier out.
        in_chans: Channels of the images.
        drop_rate: Dropout probability before the classifier (default: the network's).
        drop_path_rate: 1 − p_L of stochastic depth with linear decay (Huang et al. 2016, section 3). Every training
            step draws one gate per block, for the whole batch, from torch's global generator. Under DDP that needs
            ``find_unused_parameters=True``; in a fit with a ``Trainer`` take ``callbacks.StochasticDepth`` instead.
        global_pool: ``avg``, or an empty text for maps in place of their means, which needs ``num_classes=0``.
        device: Of the parameters (default: torch's).
        dtype: Of the parameters (default: torch's).
        arguments: Any other argument of the network.

    Raises:
        NetworkError: For a pooling that is neither, or a ``drop_path_rate`` where there is no residual branch to drop.
    """

    classifier = "fc"
    """Name of the last layer."""

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 3,
        drop_rate: float | None = None,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        device: Any = None,
        dtype: torch.dtype | None = None,
        **arguments: Any,
    ) -> None:
        with nullcontext() if device is None else torch.device(device):
            super().__init__(num_classes=num_classes or 1, in_channels=in_chans, **arguments)
        if drop_rate is not None or not hasattr(self, "dropout"):
            self.dropout = nn.Dropout(drop_rate or 0.0)
        self.drop_rate = self.dropout.p
        self.drop_path_rate = drop_path_rate
        self.survival_probs = self._survival_probs(drop_path_rate)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = self._pooling(num_classes, global_pool)
        self.grad_checkpointing = False
        self.feature_info = self.stages_of_maps()
        if dtype is not None:
            self.to(dtype)
        if num_classes == 0:
            self.reset_classifier(0, self.global_pool)

    if TYPE_CHECKING:
        num_features: int
        links: Any
        feature_maps: Any
        feature_channels: Any
        feature_strides: Any

    def stages_of_maps(self) -> list[Stage]:
        """timm's ``feature_info``."""
        stages = zip(self._modules_of_maps(), self.feature_channels, self._reductions(), strict=True)
        return [{"module": name, "num_chs": channels, "reduction": stride} for name, channels, stride in stages]

    @abstractmethod
    def _modules_of_maps(self) -> list[str]:
        """Names of the modules that the maps of ``feature_maps`` come from."""

    def _reductions(self) -> tuple[int, ...]:
        """Pixels of the image, on a side, in one pixel of each map."""
        return self.feature_strides

    @property
    def head_hidden_size(self) -> int:
        """Channels of what the classifier gets."""
        return self.num_features

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> logits (N, num_classes)."""
        return super().forward(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H', W')."""
        self._draw_gates()
        return super().forward_features(x)  # type: ignore[misc]

    def _draw_gates(self) -> None:
        if self.training:
            for block, prob in self.survival_probs.items():
                self.get_submodule(block).gate = bool(torch.rand(()) < prob)  # type: ignore[assignment]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> logits (N, K), with ``pre_logits`` what the classifier gets."""
        return super().forward_head(x, pre_logits) if self.global_pool else x  # type: ignore[misc]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The features and the maps of each stage, or those maps alone.

        Args:
            x: (N, in_chans, H, W).
            indices: Of the stages, all by default; a number is that of the last ones.
            norm: Without effect, as every map is normalised where the network normalises it.
            stop_early: Without effect on the maps; the network runs to its end.
            output_fmt: ``NCHW``.
            intermediates_only: Return the maps alone.
        """
        if output_fmt != "NCHW":
            raise NetworkError(f"The maps of this network are NCHW, and output_fmt is {output_fmt!r}.")
        wanted = chosen_indices(len(self.feature_info), indices)
        self._draw_gates()
        maps = self.feature_maps(x)
        kept = [maps[i] for i in wanted]
        return kept if intermediates_only else (maps[-1], kept)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove in place what comes after the last of some stages, and return the numbers of these stages.

        Args:
            indices: Of the stages; a number is that of the last ones.
            prune_norm: Without effect, as in ``forward_intermediates``.
            prune_head: Remove the classifier and the pooling before it.

        Raises:
            NetworkError: If the classifier is to stay without the last stage.
        """
        wanted = chosen_indices(len(self.feature_info), indices)
        kept = max(wanted) + 1
        if prune_head:
            self.reset_classifier(0, "")
        elif kept < len(self.feature_info):
            raise NetworkError("The classifier takes the maps of the last stage: keep that one, or set prune_head.")
        if kept < len(self.feature_info):
            self.feature_info = self.feature_info[:kept]
            self.num_features = self.feature_info[-1]["num_chs"]
            self._end_after(self.feature_info[-1]["module"])
        modules = dict(self.named_modules())
        self.survival_probs = {name: prob for name, prob in self.survival_probs.items() if name in modules}
        return wanted

    @abstractmethod
    def _end_after(self, module: str) -> None:
        """Remove the modules behind the one of this name, in which a stage ends."""

    def get_classifier(self, name_only: bool = False) -> Any:
        """The last layer, or its name."""
        return self.classifier if name_only else self.get_submodule(self.classifier)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one on the device and in the data type of the network; 0 removes it."""
        pooling = global_pool if global_pool is not None else "avg" if num_classes else self.global_pool
        self.global_pool = self._pooling(num_classes, pooling)
        self.num_classes = num_classes
        old = next(self.parameters())
        with old.device:
            super().reset_classifier(num_classes)  # type: ignore[misc]
        self.get_classifier().to(old.dtype).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the layers between stem and head a second time in the backward pass, and keep no maps in them."""
        self.grad_checkpointing = enable
        for link in self.links()[1:-1]:
            module = self.get_submodule(link.name)
            vars(module).pop("forward", None)
            if enable:
                module.forward = partial(checkpoint, module.forward, use_reentrant=False)

    def train(self, mode: bool = True) -> "Self":
        for block in self.survival_probs if hasattr(self, "survival_probs") else ():
            self.get_submodule(block).gate = None  # type: ignore[assignment]
        return super().train(mode)

    def __prepare_scriptable__(self) -> fx.GraphModule:
        """What ``torch.jit.script`` compiles: the network as traced in its mode, as its Python can't be compiled."""
        traced = fx.symbolic_trace(self)
        traced.graph.eliminate_dead_code()
        for node in traced.graph.nodes:
            node.type = None  # annotations are texts here, which TorchScript does not know; its default is a tensor
        traced.recompile()
        return traced

    def _survival_probs(self, drop_path_rate: float) -> dict[str, float]:
        if not 0 <= drop_path_rate < 1:
            raise NetworkError(f"drop_path_rate is a probability below 1, not {drop_path_rate}.")
        blocks = self.residual_blocks() if isinstance(self, ResidualNetwork) else {}
        if not drop_path_rate:
            return {}
        if not blocks:
            raise NetworkError("This network has no residual branch that drop_path_rate could drop: leave it at 0.")
        probs = {name: 1 - drop_path_rate * i / len(blocks) for i, name in enumerate(blocks, start=1)}
        for name, prob in probs.items():
            blocks[name].survival_prob.fill_(prob)
            self.get_submodule(name).varying_depth = True  # type: ignore[assignment]
        return probs

    @staticmethod
    def _pooling(num_classes: int, global_pool: str) -> str:
        if global_pool not in ("avg", ""):
            raise NetworkError(f"This network takes the mean over the pixels: global_pool is avg, not {global_pool!r}.")
        if num_classes and not global_pool:
            raise NetworkError("Without global_pool nothing can be classified: set num_classes to 0 as well.")
        return global_pool


@keeps_arguments
class TimmVanillaNet(TimmConventions, VanillaNet):
    """VanillaNet with timm's interface. λ stays where ``set_activation_lambda`` puts it, at 0 to begin with."""

    classifier = "head"

    def __init__(self, num_classes: int, **arguments: Any) -> None:
        super().__init__(num_classes, **arguments)
        # timm's reparameterize_model asks the children of a network and not the network, which knows λ.
        self.stem.reparameterize = self.reparameterize  # type: ignore[assignment]

    def get_classifier(self, name_only: bool = False) -> Any:
        head = super().get_classifier(name_only)
        if not name_only:
            head.in_features, head.out_features = self.num_features, self.num_classes
        return head

    def _modules_of_maps(self) -> list[str]:
        names = ["stem", *(f"blocks.{i}" for i in range(len(self.blocks)))]
        return list(compress(names, self._ends_resolution))

    def _reductions(self) -> tuple[int, ...]:
        return self._strides_of_maps()

    def _end_after(self, module: str) -> None:
        kept = 0 if module == "stem" else int(module.removeprefix("blocks.")) + 1
        self.blocks = self.blocks[:kept]
        self.strides = self.strides[:kept]
        self._ends_resolution = self._ends_resolution[: kept + 1]


class TimmGoogLeNet(TimmConventions, GoogLeNet):
    """GoogLeNet with timm's interface."""

    def _modules_of_maps(self) -> list[str]:
        return ["conv1", "norm2", "inception3b", "inception4e", "inception5b"]

    def _end_after(self, module: str) -> None:
        kept = self.layers.index(module) + 1
        for name in self.layers[kept:]:
            delattr(self, name)
            if name in self.heads:
                delattr(self, self.heads.pop(name))
        self.layers = self.layers[:kept]


class TimmCIFARResNet(TimmConventions, CIFARResNet):
    """CIFARResNet with timm's interface, and with dropout before the classifier."""

    def _modules_of_maps(self) -> list[str]:
        return self.stages

    def _end_after(self, module: str) -> None:
        kept = self.stages.index(module) + 1
        for name in self.stages[kept:]:
            delattr(self, name)
        self.stages = self.stages[:kept]
        self.feature_channels = self.feature_channels[:kept]
        if self.preactivation:  # its last normalisation is that of the last stage
            del self.bn1
            self._last_activation = identity  # type: ignore[method-assign]
