from __future__ import annotations

import numpy as np
import pytest

from datamodules.pipeline.cache import cached

ARRAY = np.arange(10_000, dtype=np.uint8)


class Builder:
    """Counts how often it had to build."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"array": ARRAY}


def test_what_is_cached_is_built_once(cache):
    build = Builder()
    for _ in range(3):
        assert np.array_equal(cached("name", ["source", 1], build)["array"], ARRAY)
    assert build.calls == 1
    assert [path.name for path in cache.iterdir()] == ["name.npz"]


def test_a_stale_cache_is_rebuilt_in_place(cache):
    build = Builder()
    for state in (1, 2, 2, 1):
        cached("name", ["source", state], build)
    assert build.calls == 3
    assert len(list(cache.iterdir())) == 1


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("spoil", [_flip, lambda data: data[:-1000], lambda data: b"", lambda data: b"PK\x03\x04junk"])
def test_a_broken_cache_is_rebuilt(cache, spoil):
    build = Builder()
    cached("name", "source", build)
    path = cache / "name.npz"
    path.write_bytes(spoil(path.read_bytes()))
    assert np.array_equal(cached("name", "source", build)["array"], ARRAY)
    cached("name", "source", build)
    assert build.calls == 2


def test_without_a_writable_cache_all_goes_on_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FATHOM_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written .* set FATHOM_CACHE"):
        assert np.array_equal(cached("name", "source", Builder())["array"], ARRAY)


def test_a_build_that_fails_leaves_nothing_behind(cache):
    def fail() -> dict[str, np.ndarray]:
        raise OSError("broken image")

    with pytest.raises(OSError, match="broken image"):
        cached("name", "source", fail)
    assert not list(cache.iterdir())
