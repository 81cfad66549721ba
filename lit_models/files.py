"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal


@contextmanager
def atomic(path: str | Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A file to write into, which is at ``path`` once the block has ended, and on disk.

    Where the block raises, or the process is killed, ``path`` is what it was before. Until then its content is in a
    hidden file of its own beside it, ``.<name>.<process>-<random>``. Folders are made as needed.

    Args:
        path: of the file.
        mode: text in UTF-8, with line ends as written, or bytes.

    Raises:
        OSError: naming ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    text = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
    try:
        # "x" makes a new file or fails: it never writes into one that is there, nor through a link.
        with open(unfinished, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        if error.filename in (None, str(unfinished)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)
