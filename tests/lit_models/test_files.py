"""A file is there as a whole or as it was before, and an error names it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from lit_models.files import atomic


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("before")
    return file


def only(path, content):
    return path.read_text() == content and list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_once_it_is_whole(path):
    with atomic(path) as file:
        file.write("after\r\nλ")
        assert path.read_text() == "before"
    assert path.read_bytes() == "after\r\nλ".encode()
    assert list(path.parent.iterdir()) == [path]


def test_folders_are_made_and_bytes_are_bytes(tmp_path):
    with atomic(tmp_path / "a" / "b" / "c", "wb") as file:
        file.write(b"\0\n")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"\0\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_raises_leaves_the_file_as_it_was(path, error):
    def write():
        with atomic(path) as file:
            file.write("after")
            raise error

    with pytest.raises(error):
        write()
    assert only(path, "before")


def test_a_process_that_is_killed_leaves_the_file_as_it_was(path):
    script = "import os, sys; from lit_models.files import atomic\nwith atomic(sys.argv[1]) as file:\n"
    script += "    file.write('after'); file.flush(); os.kill(os.getpid(), 9)"
    process = subprocess.run([sys.executable, "-c", script, str(path)], timeout=120, check=False)
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    # What is left is found by its name when the run is resumed.
    (left,) = set(path.parent.iterdir()) - {path}
    assert left in path.parent.glob(".*.*.[0-9]*")


def test_an_error_of_the_system_names_the_file(path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised, atomic(path) as file:
        file.write("after")
    assert raised.value.filename == str(path)
    assert only(path, "before")


def test_a_folder_in_its_place_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised, atomic(tmp_path / "folder") as file:
        file.write("after")
    assert raised.value.filename == str(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_about_another_file_keeps_its_name(path):
    with pytest.raises(FileNotFoundError) as raised, atomic(path):
        (path.parent / "nowhere").read_text()
    assert raised.value.filename == str(path.parent / "nowhere")


def test_nothing_is_written_through_a_link(path, monkeypatch):
    victim = path.with_name("victim")
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "known")
    path.with_name(f".{path.name}.{os.getpid()}-known").symlink_to(victim)
    with pytest.raises(FileExistsError), atomic(path) as file:
        file.write("after")
    assert victim.read_text() == "precious"
    assert path.read_text() == "before"


def test_two_writers_do_not_mix(path):
    with atomic(path) as first, atomic(path) as second:
        first.write("first")
        second.write("second")
    assert only(path, "first")


def test_the_umask_says_who_may_read_it(path):
    before = os.umask(0o027)
    try:
        with atomic(path) as file:
            file.write("after")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
