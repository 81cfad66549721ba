from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.pipeline.cache import cache_dir, cached, entries

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
    assert len(list(cache.iterdir())) == 1


def test_another_source_is_another_file(cache):
    build = Builder()
    for state in (1, 2, 2, 1):
        cached("name", ["source", state], build)
    assert build.calls == 2
    assert len(list(cache.iterdir())) == 2


def test_what_is_not_current_is_rebuilt_in_place(cache):
    build = Builder()
    cached("name", "source", build)
    cached("name", "source", build, lambda arrays: not np.array_equal(arrays["array"], ARRAY))
    assert build.calls == 2
    assert len(list(cache.iterdir())) == 1


def test_the_least_recently_used_files_make_room(cache, monkeypatch):
    monkeypatch.setenv("FATHOM_CACHE_GB", "3e-5")  # three of 10,260 bytes are too many
    for number, name in enumerate(("a", "b")):
        cached(name, "source", Builder())
        os.utime(entries()[-1][0], (number, number))
    again = Builder()
    cached("a", "source", again)  # used once more
    cached("c", "source", Builder())
    assert again.calls == 0
    assert sorted(path.name[0] for path, *_ in entries()) == ["a", "c"]
    monkeypatch.setenv("FATHOM_CACHE_GB", "1e-6")
    cached("d", "source", Builder())
    assert [path.name[0] for path, *_ in entries()] == ["d"]  # too large itself, but of use
    monkeypatch.setenv("FATHOM_CACHE_GB", "many")
    with pytest.warns(UserWarning, match="FATHOM_CACHE_GB is 'many'"):
        cached("e", "source", Builder())


def test_without_a_home_the_folder_of_temporary_files_is_used(monkeypatch):
    monkeypatch.delenv("FATHOM_CACHE")
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_dir() == Path(tempfile.gettempdir()) / "fathom"


def test_the_cache_is_shown_and_emptied(cache, fathom, capsys):
    cached("name", "source", Builder())
    (cache / "shards" / "x").mkdir(parents=True)
    (cache / "shards" / "x" / "chunk.bin").write_bytes(bytes(100_000))
    from experiments.commands.cache import cache as command

    command()
    shown = capsys.readouterr().out
    assert "name-" in shown
    assert f"0.1 MB in {cache}" in shown
    command(clear=True)
    assert capsys.readouterr().out == f"{cache}: 0.1 MB removed\n"
    assert list(cache.iterdir()) == []
    assert fathom("cache") == (0, "")


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _encrypt(data: bytes) -> bytes:
    flagged = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        flagged[data.index(signature) + offset] |= 1
    return bytes(flagged)


def _bare(data: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, ARRAY)
    return file.getvalue()


SPOILT = {
    "flipped": _flip,
    "cut": lambda data: data[:-1000],
    "empty": lambda data: b"",
    "junk": lambda data: b"PK\x03\x04junk",
    "encrypted": _encrypt,
    "no archive": _bare,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_broken_cache_is_rebuilt(cache, spoil):
    build = Builder()
    cached("name", "source", build)
    (path,) = cache.iterdir()
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
