"""Train deep, run shallow: the trained network merged, compared and saved when fit ends (VanillaNet, section 3.1)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from callbacks.requirements import network_with
from lit_models.checkpoints import merged_checkpoint, write_atomically
from lit_models.cost import count_macs, count_parameters
from lit_models.interfaces import Reparameterizable


class MergeError(RuntimeError):
    """The merged network does not compute what the trained one does."""


class MergeAtFitEnd(L.Callback):
    """Merges a copy of the final weights, proves it equal to the trained network, and saves it as a checkpoint.

    The copy is folded in float64 and compared on real validation images, in float32 and in float64, on the CPU (where
    no TF32 hides a difference). Its checkpoint loads like any other. A fit that ended before the network can be
    merged, as a smoke run does, leaves a warning and the reason in the report.

    Args:
        filename: of the merged checkpoint, in the run directory.
        num_images: validation images to compare on.
        float32_tolerance: largest difference of logits in float32, relative to the largest logit.
        float64_tolerance: likewise in float64.

    Raises:
        MisconfigurationException: in ``setup``, for a network that can't be merged.
        MergeError: where the difference is too large; nothing is saved, the training checkpoints stay.
    """

    def __init__(
        self,
        filename: str = "merged.ckpt",
        num_images: int = 32,
        float32_tolerance: float = 1e-4,
        float64_tolerance: float = 1e-10,
    ) -> None:
        self.filename = filename
        self.num_images = num_images
        self.float32_tolerance = float32_tolerance
        self.float64_tolerance = float64_tolerance
        self._images: Tensor | None = None
        self._report: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            network_with(Reparameterizable, pl_module, self)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if self._images is None:
            self._images = batch[0][: self.num_images].detach().float().cpu()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        trained = copy.deepcopy(cast(nn.Module, pl_module.net)).cpu().float().eval()
        try:
            merged = merged_copy(trained)
        except ValueError as reason:
            self._refuse(str(reason))
            return
        if self._images is None:
            self._refuse("this fit validated nothing, so there are no images to compare the two forms on")
            return
        self._report = {
            "merged": False,
            **_costs("trained", trained, self._images),
            **_costs("merged", merged, self._images),
        }
        self._compare(trained, merged, self._images)
        path = Path(trainer.default_root_dir) / self.filename
        write_atomically(merged_checkpoint(pl_module, merged), path)
        self._report |= {"merged": True, "checkpoint": self.filename}
        numbers = {f"merge/{name}": value for name, value in self._report.items() if type(value) in (int, float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
        rank_zero_info(
            f"Merged into {path}; largest logit difference {self._report['max_logit_difference_float32']:.1e}"
        )

    def report(self) -> dict[str, Any]:
        """The ``merge`` part of the run's summary."""
        return {"merge": self._report} if self._report else {}

    def _refuse(self, reason: str) -> None:
        rank_zero_warn(f"The network was not merged: {reason}")
        self._report = {"merged": False, "reason": reason}

    def _compare(self, trained: nn.Module, merged: nn.Module, images: Tensor) -> None:
        double = copy.deepcopy(trained).double()
        for name, tolerance, before, after, inputs in (
            ("float32", self.float32_tolerance, trained, merged, images),
            ("float64", self.float64_tolerance, double, merged_copy(double), images.double()),
        ):
            absolute, relative = logit_difference(before, after, inputs)
            self._report[f"max_logit_difference_{name}"] = absolute
            self._report[f"relative_logit_difference_{name}"] = relative
            if not relative <= tolerance:  # NaN is not
                raise MergeError(
                    f"the merged network differs from the trained one by {relative:.1e} of the largest logit in {name},"
                    f" where MergeAtFitEnd allows {tolerance:.0e}: no merged checkpoint was written, and those of the"
                    " training are untouched"
                )


def merged_copy(net: nn.Module) -> nn.Module:
    """A copy of ``net``, reparameterized. Raises what :meth:`Reparameterizable.reparameterize` raises."""
    merged = copy.deepcopy(net)
    merged.reparameterize()  # type: ignore[operator]
    return merged


@torch.no_grad()
def logit_difference(trained: nn.Module, merged: nn.Module, images: Tensor) -> tuple[float, float]:
    """How far merging moves the logits.

    Returns:
        The largest difference over ``images`` (N, C, H, W), and the same as a share of the largest logit.
    """
    expected = trained(images)
    difference = (merged(images) - expected).abs().max().item()
    return difference, difference / expected.abs().max().item()


def _costs(form: str, net: nn.Module, images: Tensor) -> dict[str, int]:
    channels, height, width = images.shape[1:]
    return {
        f"parameters_{form}": count_parameters(net),
        f"macs_{form}": count_macs(net, (channels, height, width)),
    }
