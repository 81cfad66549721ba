"""model.onnx, for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from experiments.errors import UsageError
from experiments.export.subject import Subject

FILE = "model.onnx"


def check_packages() -> None:
    """Raises ``UsageError`` where a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing, which writes ONNX: pip install 'fathom-depth[export]'") from error


def write(subject: Subject, folder: Path, program: ExportedProgram) -> None:
    """Write ``program``; classes and preprocessing are in the metadata."""
    import onnx

    name = "pixels" if program is subject.__dict__.get("preprocessed_program") else "images"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program, (), input_names=[name], output_names=["logits"], dynamo=True, verbose=False
        )
        assert exported is not None
        model = exported.model_proto
    description = json.dumps(subject.description, ensure_ascii=False)
    classes = json.dumps(subject.trained.class_names, ensure_ascii=False)
    onnx.helper.set_model_props(model, {"preprocess": description, "class_names": classes})
    onnx.checker.check_model(model)
    onnx.save(model, folder / FILE)


def read(folder: Path, file: str = FILE) -> Callable[[Tensor], Tensor]:
    """The network in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])
