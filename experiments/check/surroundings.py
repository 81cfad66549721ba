"""Versions, the device and the settings that decide how it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from callbacks.run.run_summary import hardware, provenance
from experiments.check.answers import Answer, Setting


def surroundings(setting: Setting) -> Iterator[Answer]:
    """They are printed; that all packages are imported is what passes."""
    known = provenance()
    versions = " ".join(f"{name} {version}" for name, version in known["versions"].items())
    yield Answer("versions", versions, True, known)
    settings: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if setting.on_gpu:
        properties = torch.cuda.get_device_properties(setting.device)
        settings |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "capability": f"{properties.major}.{properties.minor}",
            "GiB": round(properties.total_memory / 2**30),
        }
    described = ", ".join(f"{name} {value}" for name, value in settings.items())
    yield Answer(hardware(setting.device), described, None, settings)
