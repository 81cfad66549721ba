"""model.int8.onnx: the ONNX file with weights and activations in eight bits, and what that costs and saves."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.pipeline.image_data import ImageData
from experiments.export import onnx_file
from experiments.export.trained import Trained

FILE = "model.int8.onnx"
ROUNDS = 15
CALIBRATION_IMAGES = 256
"""Training images, drawn evenly over the classes."""


def write(trained: Trained, folder: Path, data: ImageData) -> dict[str, Any]:
    """Quantise ``model.onnx`` of ``folder``, and compare the two.

    Static quantisation: scales of activations are found on training images, prepared as evaluation does; those of
    weights are of each output channel.

    Args:
        trained: the checkpoint.
        folder: of ``model.onnx``.
        data: of the run, set up.

    Returns:
        Top-1 on the test images, bytes, and milliseconds of one image, of both; and the number of images.
    """
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(data.sample_loader(CALIBRATION_IMAGES, test=False))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": trained.images(batch.images).contiguous().numpy()}

    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess what was preprocessed
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(folder / onnx_file.FILE), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(folder / FILE),
            Images(),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
    return _compared(trained, folder, data)


def _compared(trained: Trained, folder: Path, data: ImageData) -> dict[str, Any]:
    from scipy.stats import binomtest

    read = {name: onnx_file.read(folder, name) for name in (onnx_file.FILE, FILE)}
    hits, images, first = dict.fromkeys(read, 0), 0, None
    for normalised, targets in _test_batches(trained, data):
        images += len(targets)
        first = normalised[:1] if first is None else first
        for name, network in read.items():
            hits[name] += int((network(normalised).argmax(1) == targets).sum())
    assert first is not None
    milliseconds: dict[str, list[float]] = {name: [] for name in read}
    for _ in range(ROUNDS):
        for name, network in read.items():  # in turns, so that a machine that is slow for a moment slows both
            start = time.perf_counter()
            network(first)
            milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {
        "images": images,
        "files": {
            name: {
                "top1": hits[name] / images,
                "interval": tuple(binomtest(hits[name], images).proportion_ci(method="wilson")),
                "bytes": (folder / name).stat().st_size,
                "milliseconds_an_image": round(median(milliseconds[name]), 3),
            }
            for name in read
        },
    }


def _test_batches(trained: Trained, data: ImageData) -> Iterator[tuple[Tensor, Tensor]]:
    with torch.inference_mode():
        for batch in data.sample_loader(data.test_images()):
            yield trained.images(batch.images).contiguous(), batch.targets


def in_words(found: dict[str, Any]) -> str:
    """What is printed: both files side by side."""
    lines = [f"int8, on {found['images']:,} test images:"]
    for name, file in found["files"].items():
        low, high = file["interval"]
        lines.append(
            f"  {name}: top-1 {file['top1']:.2%} (95% interval {low:.2%} to {high:.2%}), {file['bytes'] / 1e6:.2f} MB,"
            f" {file['milliseconds_an_image']:.2f} ms an image"
        )
    return "\n".join(lines)
