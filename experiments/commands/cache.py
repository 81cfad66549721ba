"""Show what the cache holds, or empty it."""

from __future__ import annotations

import shutil
import time

from datamodules.pipeline.cache import cache_dir, entries


def cache(clear: bool = False) -> None:
    """List the files in the cache, or remove all of them.

    The cache is the folder ``$FATHOM_CACHE`` (default: ``~/.cache/fathom``). It holds decoded images, their statistics
    and downloaded shards, at most ``$FATHOM_CACHE_GB`` gigabytes (20 by default) of images and as much of the
    shards of one data set, and whatever is removed is made again when it is needed.

    Args:
        clear: remove everything in the cache.
    """
    folder, shards = cache_dir(), cache_dir() / "shards"
    found = [(path.name, size, used) for path, size, used in entries()]
    if shards.is_dir():
        size = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())
        found.append(("shards/", size, shards.stat().st_mtime))
    total = f"{sum(size for _, size, _ in found) / 1e6:,.1f} MB"
    if clear:
        for path, *_ in entries():
            path.unlink(missing_ok=True)
        for path in folder.glob("*.part"):
            path.unlink(missing_ok=True)
        shutil.rmtree(shards, ignore_errors=True)
        print(f"{folder}: {total} removed")
        return
    for name, size, used in found:
        print(f"{size / 1e6:12,.1f} MB  used {time.strftime('%Y-%m-%d %H:%M', time.localtime(used))}  {name}")
    print(f"{total} in {folder}; to remove it: fathom cache --clear true")
