"""A run for each set of files and flags: what has finished is not trained again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.cli.command_line import FathomCLI


def train(configs: Sequence[Path], seed: int, runs: Path, flags: Sequence[str]) -> Path:
    """The directory of the run of ``configs`` and ``flags``, which is trained where none in ``runs`` has finished."""
    made_from = [*(path.read_text() for path in configs), *flags]
    place = runs / f"seed{seed}-{hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]}"
    for summary in place.glob(f"{configs[-1].stem}/*/summary.json"):
        if json.loads(summary.read_text(encoding="utf-8"))["status"] == "finished":
            return summary.parent
    named = [word for path in configs for word in ("--config", str(path))]
    cli = FathomCLI(["fit", *named, *flags, "--seed_everything", str(seed), "--trainer.default_root_dir", str(place)])
    return Path(cli.trainer.default_root_dir)
