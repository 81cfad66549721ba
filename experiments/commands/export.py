"""Write a trained network in files that other runtimes load: ONNX, PyTorch, safetensors, the hub, timm."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from datamodules.pipeline.image_data import ImageData
from experiments.cli.data_of_run import data_of_run
from experiments.errors import UsageError
from experiments.export import aoti_file, int8_file, onnx_file, pt2_file, repositories, weights
from experiments.export.comparison import BATCHES, Difference, cases, difference, pixel_cases, real_images
from experiments.export.subject import Subject, free_sides
from experiments.export.trained import Trained, open_trained
from experiments.runs.fits import summary_of

FORMATS = ("onnx", "pt2", "aoti", "safetensors", "hub", "timm")
TOLERANCE = {"describe": 1e-4, "embed": 2e-2}
"""Largest difference relative to the largest logit. Pixels resized in the graph are a level off here and there."""


def export(
    run: Path,
    to: str = "onnx",
    out: Path | None = None,
    preprocess: Literal["embed", "describe"] = "describe",
    int8: bool = False,
    data: ImageData | None = None,
) -> None:
    """Write a classifier in the formats that other programs load, each read back and compared on images of the run.

    A network that can be merged is merged first. Every folder gets preprocess.json, which says how images are prepared
    and names the classes, and export.json with the differences. Above the tolerance nothing is written.

    Args:
        run: run directory, whose merged.ckpt is taken, or its best checkpoint if there is none; a checkpoint;
            or pretrained:NAME.
        to: formats, separated by commas: onnx, pt2, aoti, safetensors, hub, timm.
        out: new folder.
        preprocess: describe: the file takes normalised images, float32 (N, C, H, W). embed: onnx and pt2 take pixels,
            uint8 (N, H, W, C) of any size, which they resize, crop and normalise as evaluation does.
        int8: write model.int8.onnx, too, quantised on training images, and compare top-1 on the test images, size and
            latency.
        data: data module for a checkpoint outside its run (default: the run's).
    """
    formats = to.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"--to {unknown[0]}: there are {', '.join(FORMATS)}; several are separated by commas")
    if out is None:
        raise UsageError("say where to write: --out FOLDER")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists: remove it or choose another folder")
    if int8 and ("onnx" not in formats or preprocess == "embed"):
        raise UsageError("--int8 quantises the ONNX file of normalised images: add onnx to --to, and leave embed out")
    if preprocess == "embed" and "aoti" in formats:
        raise UsageError("aoti takes normalised images: leave it out of --to, or --preprocess embed")
    if "onnx" in formats:
        onnx_file.check_packages()
    if "aoti" in formats:
        aoti_file.check_compiler()
    merged = run / "merged.ckpt"
    trained = open_trained(merged if merged.is_file() else run, data)
    images = data or data_of_run(_config(trained))
    raw = real_images(images, sum(BATCHES))
    subject = Subject(trained, trained.images(raw).contiguous(), _what_is_known(trained))
    compared = cases(subject, free_sides(subject.program))
    pixels = pixel_cases(subject, raw) if preprocess == "embed" else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as staged:
        folder = Path(staged) / "export"
        folder.mkdir(mode=0o755)
        report = {}
        for name in formats:
            embedded = preprocess == "embed" and name in ("onnx", "pt2")
            read = _written(name, subject, folder, embedded)
            found = difference(read, pixels if embedded else compared)
            report[name] = _checked(name, found, TOLERANCE["embed" if embedded else "describe"])
        whole = _report(subject, report)
        if int8:
            whole["int8"] = int8_file.write(trained, folder, images)
            print(int8_file.in_words(whole["int8"]))
        for name, content in (("preprocess.json", subject.description), ("export.json", whole)):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
    print(f"{trained.checkpoint} is in {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _written(name: str, subject: Subject, folder: Path, embedded: bool) -> Callable[[Tensor], Tensor]:
    """Write a format, and read it back."""
    if name in ("onnx", "pt2", "aoti"):
        file: Any = {"onnx": onnx_file, "pt2": pt2_file, "aoti": aoti_file}[name]
        file.write(subject, folder, subject.preprocessed_program if embedded else subject.program)
        return file.read(folder)
    if name == "safetensors":
        if not (folder / "network.py").exists():
            weights.write(subject, folder)
        return weights.read(folder)
    if not (folder / "config.json").exists():
        repositories.write(subject, folder)
    return repositories.read_hub(folder) if name == "hub" else repositories.read_timm(folder)


def _checked(name: str, found: Difference, tolerance: float) -> dict[str, float]:
    print(f"{name}: largest logit difference {found.absolute:.1e}, {found.relative:.1e} of the largest logit")
    if not found.relative <= tolerance:
        raise UsageError(
            f"the {name} file gives other logits than the network, by {found.relative:.1e} of the largest one where"
            f" {tolerance:.0e} is allowed: nothing was written"
        )
    return {"absolute": found.absolute, "relative": found.relative, "tolerance": tolerance}


def _config(trained: Trained) -> Path:
    if trained.config is None:
        raise UsageError(f"{trained.checkpoint} lies outside its run: give --data, whose images are compared on")
    return trained.config


def _report(subject: Subject, formats: dict[str, Any]) -> dict[str, Any]:
    return {
        "checkpoint": str(subject.trained.checkpoint),
        "formats": formats,
        "batches": list(BATCHES),
        "height_and_width_are_free": free_sides(subject.program),
        **({"merge": subject.card["merge"]} if "merge" in subject.card else {}),
    }


def _what_is_known(trained: Trained) -> dict[str, Any]:
    """Summary, recipe and accuracies of the run."""
    if trained.config is None:
        return {}
    known: dict[str, Any] = summary_of(trained.config.parent)
    known.pop("merge", None)
    accuracies = {}
    if "val/top1" in known.get("metrics", {}) and known.get("val_images"):
        accuracies["validation top-1"] = known["metrics"]["val/top1"], known["val_images"]
    tests = [summary_of(path.parent) for path in sorted(trained.config.parent.glob("test/*/summary.json"))]
    if tests and "test/top1" in tests[-1].get("metrics", {}) and tests[-1].get("test_images"):
        accuracies["test top-1"] = tests[-1]["metrics"]["test/top1"], tests[-1]["test_images"]
    return {**known, "accuracies": accuracies, "recipe": trained.config.read_text(encoding="utf-8")}
