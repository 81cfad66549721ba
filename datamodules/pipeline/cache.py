"""A cache of tensors on disk, rebuilt whenever it is not exactly what is wanted."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def cache_dir() -> Path:
    """``$FATHOM_CACHE``, by default ``~/.cache/fathom``."""
    return Path(os.environ.get("FATHOM_CACHE") or "~/.cache/fathom").expanduser()


def cached(name: str, made_from: Any, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays that ``build`` returns, from the cache where it holds them.

    One file per name. It also holds a hash of ``made_from``; where this differs, or the file fails the
    checksums that the zip format keeps of its members, it is built again and replaced in one step. Where
    the cache cannot be written, a warning says so and the arrays are returned all the same.

    Args:
        name: names the file; the same data in another state has the same name.
        made_from: everything the arrays depend on, JSON-able.
        build: makes them.
    """
    fingerprint = np.frombuffer(hashlib.sha256(json.dumps(made_from).encode()).digest(), np.uint8)
    path = cache_dir() / f"{name}.npz"
    try:
        with np.load(path) as file:
            if np.array_equal(file["fingerprint"], fingerprint):
                return {key: file[key] for key in file.files if key != "fingerprint"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent or broken: both are mended below
    arrays = build()
    try:
        _write(path, {**arrays, "fingerprint": fingerprint})
    except OSError as error:
        warnings.warn(f"The cache {path} cannot be written ({error}); set FATHOM_CACHE.", stacklevel=2)
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
