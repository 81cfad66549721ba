"""Train deep, run shallow: the trained network merged, compared and saved when fit ends (VanillaNet, section 3.1)."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from callbacks.merge_proof import TOLERANCES, MergeError, check_num_images, compare_merged
from callbacks.requirements import network_with
from lit_models.checkpoints import merged_checkpoint, write_atomically
from lit_models.cost import count_macs, count_parameters
from lit_models.interfaces import Reparameterizable
from lit_models.surgery.reparameterize import merged_copy
from lit_models.tasks.loading import load_checkpoint

MERGED = "merged.ckpt"


class MergeAtFitEnd(L.Callback):
    """Merges a copy of the final weights, compares it with the trained network, and saves it as a checkpoint.

    The copy is folded in float64 and compared on real validation images, in float32 and in float64, on the CPU (where
    no TF32 hides a difference). Its checkpoint is loaded again, and has to give the same logits bit for bit. A fit
    that ends before the network can be merged, such as a smoke run, leaves a warning and the reason in the report.

    Args:
        filename: Of the merged checkpoint in the run directory; it has one name.
        num_images: Number of validation images to compare on.
        float32_tolerance: Largest allowed difference of logits in float32, relative to the largest logit; fixed.
        float64_tolerance: Largest allowed difference of logits in float64, relative to the largest logit; fixed.

    Raises:
        MisconfigurationException: For a fixed argument with another value than its default, or no images; in ``setup``,
            for a network that can't be merged, or can't be built merged.
        MergeError: At the end, if the logits differ or the checkpoint can't be loaded. It is then removed; the
            checkpoints of the training stay.
    """

    def __init__(
        self,
        filename: str = MERGED,
        num_images: int = 32,
        float32_tolerance: float = TOLERANCES["float32"],
        float64_tolerance: float = TOLERANCES["float64"],
    ) -> None:
        # The configurations of earlier runs name all three.
        for name, value, fixed in (
            ("filename", filename, MERGED),
            ("float32_tolerance", float32_tolerance, TOLERANCES["float32"]),
            ("float64_tolerance", float64_tolerance, TOLERANCES["float64"]),
        ):
            if value != fixed:
                raise MisconfigurationException(f"MergeAtFitEnd has the {name} {fixed}, not {value}: leave it out")
        check_num_images(self, num_images)
        self.num_images = num_images
        self._images: Tensor | None = None
        self._report: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        net = type(network_with(Reparameterizable, pl_module, self))
        if "reparameterized" not in inspect.signature(net).parameters:
            raise MisconfigurationException(
                f"MergeAtFitEnd writes a checkpoint that loads as the merged network, and {net.__name__} can't be built"
                " merged: add an argument `reparameterized: bool = False` to its constructor that builds it in the form"
                " that reparameterize() leaves"
            )

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
            # In the memory format in which it is loaded, on which the last bit of the logits depends.
            merged = merged_copy(trained).to(memory_format=torch.channels_last)
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
        untouched = "no merged checkpoint was written, and those of the training are untouched"
        self._report |= compare_merged(trained, merged_copy, self._images, untouched)
        path = Path(trainer.default_root_dir) / MERGED
        write_atomically(merged_checkpoint(pl_module, merged), path)
        try:
            _load_again(path, merged, self._images, described="net" in pl_module.hparams)
        except MergeError:
            path.unlink()
            raise
        self._report |= {"merged": True, "checkpoint": MERGED}
        numbers = {f"merge/{name}": value for name, value in self._report.items() if type(value) in (int, float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)

    def report(self) -> dict[str, Any]:
        """The ``merge`` part of the run's summary."""
        return {"merge": self._report} if self._report else {}

    def _refuse(self, reason: str) -> None:
        rank_zero_warn(f"The network was not merged: {reason}")
        self._report = {"merged": False, "reason": reason}


@torch.no_grad()
def _load_again(path: Path, merged: nn.Module, images: Tensor, described: bool) -> None:
    """Check that a checkpoint loads as ``merged``. Raises ``MergeError`` otherwise."""
    net = None
    if not described:  # the user will have to give the network, too
        net = copy.deepcopy(merged)
        for value in net.state_dict().values():
            value.zero_()
    try:
        loaded = load_checkpoint(path, net).net
    except ValueError as error:
        raise MergeError(f"the merged network was not saved, as its checkpoint could not be loaded: {error}") from error
    if not torch.equal(loaded(images), merged(images)):
        raise MergeError(
            f"the merged network was not saved: its checkpoint gives other logits than {type(merged).__name__} did, so"
            " the constructor with `reparameterized=True` does not build the form that reparameterize() leaves"
        )


def _costs(form: str, net: nn.Module, images: Tensor) -> dict[str, int]:
    channels, height, width = images.shape[1:]
    return {
        f"parameters_{form}": count_parameters(net),
        f"macs_{form}": count_macs(net, (channels, height, width)),
    }
