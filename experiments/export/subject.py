"""What is exported: a network in the form in which it is shipped, and what a user has to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from experiments.export.preprocessing import Preprocessed
from experiments.export.trained import Trained
from lit_models import CheckpointError, NetworkError, TimmBackbone
from lit_models.surgery.reparameterize import logit_difference, merged_copy


@dataclass
class Subject:
    """A network in evaluation mode, float32, on the CPU; merged, if it can be.

    Args:
        trained: the checkpoint.
        images: real images of the run, as the network gets them: float32 (N, C, H, W).
        card: what is known of the run, for its description.
    """

    trained: Trained
    images: Tensor
    card: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def net(self) -> nn.Module:
        """The network without a wrapper.

        Raises:
            CheckpointError: for weights that are not finite, and a network that can't be merged yet.
        """
        net = self.trained.net
        for name, value in net.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise CheckpointError(f"{self.trained.checkpoint} holds values in {name} that are not finite")
        if isinstance(net, TimmBackbone):
            net = net.model
        elif hasattr(net, "reparameterize"):
            try:
                merged = merged_copy(net)
            except NetworkError as error:
                raise CheckpointError(
                    f"{self.trained.checkpoint} can't be merged: {error}; or give a later checkpoint of the run, such"
                    " as its checkpoints/last.ckpt"
                ) from error
            self.card["merge"] = logit_difference(net, merged, self.images)[0]
            net = merged
        return net.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)

    @cached_property
    def program(self) -> ExportedProgram:
        """float32 (N, C, H, W), normalised, to logits (N, K)."""
        return _exported(self.net, self.images[:1].repeat(3, 1, 1, 1), {0: BATCH, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC})

    @cached_property
    def preprocessed(self) -> nn.Module:
        """The network on uint8 (N, H, W, C)."""
        geometry, trained = self.trained.geometry, self.trained
        return Preprocessed(
            self.net, geometry.image_size, geometry.crop_ratio, geometry.interpolation, trained.mean, trained.std
        ).eval()

    @cached_property
    def preprocessed_program(self) -> ExportedProgram:
        """uint8 (N, H, W, C) to logits (N, K)."""
        side, channels = self.trained.geometry.image_size, self.images.shape[1]
        pixels = torch.zeros(3, side + 1, side + 2, channels, dtype=torch.uint8)
        return _exported(self.preprocessed, pixels, {0: BATCH, 1: Dim("height", min=2), 2: Dim("width", min=2)})

    @property
    def description(self) -> dict[str, Any]:
        """What ``preprocess.json`` says."""
        geometry = self.trained.geometry
        return {
            "image_size": geometry.image_size,
            "channels": self.images.shape[1],
            "resize": "both sides" if geometry.crop_ratio is None else "short side",
            "resize_to": geometry.image_size
            if geometry.crop_ratio is None
            else int(geometry.image_size / geometry.crop_ratio),
            "crop": "none" if geometry.crop_ratio is None else "centre",
            "crop_ratio": geometry.crop_ratio,
            "interpolation": geometry.interpolation,
            "antialias": True,
            "range": [0, 1],
            "mean": self.trained.mean,
            "std": self.trained.std,
            "layout": "NCHW",
            "class_names": self.trained.class_names,
        }


BATCH = Dim("batch", min=1)


def free_sides(program: ExportedProgram) -> bool:
    """Whether height and width of the input are free."""
    (shape,) = (
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    )
    return sum(isinstance(side, torch.SymInt) for side in shape) == 3


def _exported(module: nn.Module, example: Tensor, dims: dict[int, Any]) -> ExportedProgram:
    """With the ``dims`` free, or the batch alone where the network does not allow more.

    A map of one pixel, for one, is treated apart from all larger ones.
    """
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=(dims,), strict=False)
        program.module()(torch.cat((example, example), max(dims) - 1)[:2])
    except Exception:  # torch raises many kinds
        dims = {0: dims[0]}
    else:
        return program
    try:
        return torch.export.export(module, (example,), dynamic_shapes=(dims,), strict=False)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"torch can't export a {type(module).__name__}: {reason}") from error
