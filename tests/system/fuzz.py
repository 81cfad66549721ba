"""Mutated checkpoints, configurations and images, each from a seed, and what must never come of one."""

from __future__ import annotations

import copy
import io
import math
import random
import resource
import signal
import zipfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
import yaml
from PIL import Image

from experiments.__main__ import main


def odd_values():
    """Values that belong in few places."""
    return [
        *(None, True, -1, 0, 3, 2**40, 2**70, 1.5, math.nan, math.inf, "", "text", "../../canary", b"bytes"),
        *([], {}, [1], {"a": 1}, {1: 2}, (), [[[]]]),
        *(torch.zeros(3), torch.zeros(0), torch.zeros(3, dtype=torch.complex64), torch.ones(3, dtype=torch.int64)),
        *(torch.tensor(-1), torch.tensor(math.nan), torch.ones(2, 2, dtype=torch.bool)),
        torch.zeros(1, dtype=torch.half),
        torch.ones(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(1).expand(10**13),
    ]


def mutate(tree, rng, values):
    """Change one to three places in nested dicts and lists. Each level is as likely as the others."""
    for _ in range(rng.randint(1, 3)):
        place = tree
        while rng.random() < 0.75:
            items = place.values() if isinstance(place, dict) else place
            inner = [item for item in items if isinstance(item, dict | list) and item]
            if not inner:
                break
            place = rng.choice(inner)
        if not place:
            continue
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        what = rng.randrange(6)
        if what == 0:
            del place[key]
        elif what == 1 and isinstance(place, dict):
            place[rng.choice(["", "x", "../x", 7, "step"])] = place.pop(key)
        elif what == 2 and isinstance(place, list):
            place.append(place[key])
        elif what == 3 and isinstance(place[key], torch.Tensor):
            place[key] = odd_tensor(place[key], rng)
        else:
            place[key] = rng.choice(values)


def odd_tensor(tensor, rng):
    """One like ``tensor``, but for its type, its shape or its values."""
    return rng.choice(
        [
            lambda: tensor.to(rng.choice([torch.int64, torch.complex64, torch.bool, torch.float16, torch.float64])),
            lambda: tensor.reshape(-1)[:1].expand(10**13),
            lambda: tensor.to("meta"),
            lambda: tensor.to_sparse(),
            lambda: tensor.reshape(-1)[1:].clone(),
            lambda: tensor.unsqueeze(0).clone(),
            lambda: torch.full_like(tensor, math.nan) if tensor.is_floating_point() else -tensor,
        ]
    )()


def mutated_checkpoint(source: Path, path: Path, rng: random.Random) -> None:
    """``source`` with a mutation in its content, or of its bytes, as ``path``."""
    if rng.random() < 0.75:
        content = torch.load(source, weights_only=True)
        mutate(content, rng, odd_values())
        torch.save(content, path)
        return
    raw = bytearray(source.read_bytes())
    what = rng.randrange(4)
    if what == 0:
        path.write_bytes(raw[: rng.randrange(len(raw))])
    elif what == 1:
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
    elif what == 2:
        path.write_bytes(raw + rng.randbytes(rng.randint(1, 300)))
    else:
        repacked(source, path, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2]))


def repacked(source: Path, path: Path, compression: int) -> None:
    """Its records once more, compressed."""
    with zipfile.ZipFile(source) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, content)


def mutated_configuration(text: str, rng: random.Random) -> str:
    """With a mutation of its settings, or of its letters."""
    if rng.random() < 0.6:
        settings = copy.deepcopy(yaml.safe_load(text))
        odd = [value for value in odd_values() if not isinstance(value, torch.Tensor | tuple | bytes)]
        mutate(settings, rng, [*odd, "timm:", "lit_models.", "os.system", "~", "*", {"class_path": "x"}])
        return yaml.safe_dump(settings, allow_unicode=True)
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(lines))
        what = rng.randrange(5)
        if what == 0:
            lines.insert(i, lines[i])
        elif what == 1:
            lines[i] = " " * rng.randint(0, 6) + lines[i].lstrip()
        elif what == 2:
            lines[i] += rng.choice(
                [*(" &a", " *a", ": x", " [", " {", "]", "\t"), " !!int x", " !!python/object:os.x", " 0b_"]
            )
        elif what == 3:
            del lines[i]
        else:
            j = rng.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:j] + rng.choice("\0\x85\ufeff'\"#%@`|>-?:,[]{}&*!é\ud7ff0") + lines[i][j:]
        lines = lines or [""]
    return "\n".join(lines) + "\n"


def mutated_image(rng: random.Random) -> bytes:
    """A small image file in one of several formats with some bytes changed, cut off, or in another's place."""
    size = (rng.randint(1, 40), rng.randint(1, 40))
    mode = rng.choice(["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
    kind = rng.choice(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
    file = io.BytesIO()
    try:
        Image.frombytes("L", size, rng.randbytes(size[0] * size[1])).convert(mode).save(file, kind)
    except (OSError, ValueError):  # no such images in this format
        Image.new("RGB", size).save(file, "JPEG")
    raw = bytearray(file.getvalue())
    for _ in range(rng.randint(0, 8)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    if rng.random() < 0.3:
        raw = raw[: rng.randrange(len(raw) + 1)]
    return bytes(raw)


@contextmanager
def within(seconds: float):
    """Raises ``TimeoutError`` in the block once they are over."""

    def stop(*_):
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(more: int):
    """Lets the process grow by so many bytes: what is mutated may ask for any number."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def run(*words) -> tuple[int, str]:
    """Exit code of a command, and the sentence it fails with; any exception is one of the command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), memory_limit(4 << 30), within(60):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
    sentences = [line for line in err.getvalue().splitlines() if line.startswith("fathom: ")]
    assert "Traceback" not in err.getvalue()
    assert code in (0, 1, 2), (code, err.getvalue()[-500:])
    assert len(sentences) == (code != 0), err.getvalue()[-500:]
    return code, "".join(sentences)


def snapshot(folder: Path, but: Path) -> dict[str, bytes | None]:
    """Every file in ``folder``, with its content, but those in ``but``."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if but not in (path, *path.parents)
    }
