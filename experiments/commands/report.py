"""Write a page of HTML about one or several runs: what was run, curves, mistakes, costs, proof of the merge."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import UsageError


def report(runs: list[Path], out: Path = Path("report.html"), images: int = 1000) -> None:
    """Write one file of HTML that needs no network and nothing beside it, and can be mailed.

    It has what was run, curves, learning rate, λ and survival probabilities, confusion matrix, images that the network
    is right and wrong about, costs, the proof of the merge, lesions and paths where they were made, the differences
    between the configurations of several runs, provenance and commands. What can't be had, as the data are gone, is
    missing with its reason.

    Args:
        runs: run directories, or directories of experiments, whose newest training run is taken.
        out: the file; an existing one is overwritten.
        images: number of test images that each network is asked about, on this machine (0: none).

    Raises:
        FileNotFoundError: where there is no run.
        UsageError: for a file of a run that is damaged.
    """
    from experiments.commands.compare import named_apart
    from experiments.runs.fits import newest_fit

    if images < 0:
        raise UsageError(f"--images is {images}; give a number of test images, or 0 for none")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; give a file, such as {out / 'report.html'}")
    named = named_apart([newest_fit(path) for path in dict.fromkeys(runs)])

    from experiments.report.page import write_page
    from experiments.report.run_files import read_run

    write_page([read_run(path, name) for path, name in named.items()], images, out)
    print(f"{out} ({out.stat().st_size / 1e3:,.0f} kB) is the report")
