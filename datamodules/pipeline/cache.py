"""A cache of arrays on disk, rebuilt whenever it is not exactly what is wanted."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_GIGABYTES = 20.0


def cache_dir() -> Path:
    """``$FATHOM_CACHE``, by default ``~/.cache/fathom``; in the folder of temporary files if there is no home."""
    path = Path(os.environ.get("FATHOM_CACHE") or "~/.cache/fathom")
    try:
        return path.expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "fathom"


def cached(
    kind: str,
    made_from: Any,
    build: Callable[[], dict[str, np.ndarray]],
    is_current: Callable[[dict[str, np.ndarray]], bool] = lambda arrays: True,
) -> dict[str, np.ndarray]:
    """The arrays that ``build`` returns, from the cache if it holds them.

    The file is named by a hash of ``made_from``, so copies of one data set share it. A file that cannot be read, for
    whatever reason, or fails the checksums that the zip format keeps of its members, is built again and replaced in one
    step. If the cache cannot be written, a warning says so and the arrays are returned all the same.

    When a file is added, those used least recently are removed until the cache has at most ``$FATHOM_CACHE_GB``
    gigabytes (20 by default).

    Args:
        kind: what the name of the file begins with.
        made_from: what the arrays depend on, JSON-able.
        build: makes them.
        is_current: whether cached arrays are still right, if ``made_from`` alone cannot tell.
    """
    path = cache_dir() / f"{kind}-{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]}.npz"
    if (found := _read(path)) is not None and is_current(found):
        return found
    arrays = build()
    try:
        _write(path, arrays)
        _make_room(path)
    except OSError as error:
        warnings.warn(f"The cache {path} cannot be written ({error}); set FATHOM_CACHE.", stacklevel=2)
    return arrays


def size_limit() -> float:
    """Of the cache, in bytes: ``$FATHOM_CACHE_GB``."""
    text = os.environ.get("FATHOM_CACHE_GB")
    try:
        gigabytes = float(text) if text else DEFAULT_GIGABYTES
    except ValueError:
        warnings.warn(f"FATHOM_CACHE_GB is {text!r}, which is no number; {DEFAULT_GIGABYTES:g} is used.", stacklevel=4)
        gigabytes = DEFAULT_GIGABYTES
    return gigabytes * 1e9


def entries() -> list[tuple[Path, int, float]]:
    """Path, size in bytes and time of the last use of each file in the cache, the least recently used first."""
    found = []
    for path in cache_dir().glob("*.npz"):
        try:
            status = path.stat()
        except OSError:  # removed by another process
            continue
        found.append((path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry[2])


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        os.utime(path)  # of its last use: many file systems keep no time of access
        return arrays
    except Exception:  # absent or broken, in one of the many ways in which a file can be
        return None


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


def _make_room(newest: Path) -> None:
    limit = size_limit()
    found = entries()
    size = sum(size for _, size, _ in found)
    for path, freed, _ in found:
        if size <= limit:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            size -= freed
