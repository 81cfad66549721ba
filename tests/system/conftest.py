"""The wheel of the working tree, and the command that it installs."""

import os
import shutil
import subprocess
import sys

import pytest

PACKAGES = ("lit_models", "datamodules", "callbacks", "experiments")


@pytest.fixture(scope="session")
def wheel(repository, tmp_path_factory):
    """The wheel of the working tree, built from a copy, as setuptools leaves files where it builds."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(repository / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    build = ("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    subprocess.run([sys.executable, "-m", *build, str(source / "dist"), str(source)], check=True, timeout=120)
    (wheel,) = (source / "dist").glob("fathom_depth-*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """A function that runs the installed ``fathom`` in a folder: the finished process, within five minutes."""
    target = tmp_path_factory.mktemp("installed")
    install = ("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=120)

    def run(folder, *args, script=target / "bin" / "fathom", target=target):
        environment = os.environ | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}
        words = [sys.executable, str(script), *map(str, args)]
        return subprocess.run(
            words, cwd=folder, env=environment, timeout=300, capture_output=True, text=True, check=False
        )

    run.target = target
    return run
