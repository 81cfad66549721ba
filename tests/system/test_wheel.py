"""What is installed from a wheel, in an empty folder, without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

PACKAGES = ("lit_models", "datamodules", "callbacks", "experiments")
SHIPPED = {".py", ".yaml", ".sh", ".ipynb", ".csv", ".typed"}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs the installed ``fathom`` in a folder: the finished process, within five minutes."""
    target = tmp_path_factory.mktemp("installed")
    install = ("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=120)
    environment = os.environ | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}

    def run(folder, *args, script=target / "bin" / "fathom"):
        words = [sys.executable, str(script), *map(str, args)]
        return subprocess.run(
            words, cwd=folder, env=environment, timeout=300, capture_output=True, text=True, check=False
        )

    run.target = target
    return run


def test_the_wheel_has_every_file_that_is_used(wheel, repository):
    there = {
        str(path.relative_to(repository))
        for package in PACKAGES
        for path in (repository / package).rglob("*")
        if path.suffix in SHIPPED or path.name == "py.typed"
    }
    there = {name for name in there if "__pycache__" not in name and "/runs/20" not in name}
    assert len(there) > 150
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    assert there - shipped == set()
    assert not [name for name in shipped if name.startswith(("tests/", "build/"))]


def test_a_recipe_is_found_by_name_in_an_empty_folder(installed, tmp_path):
    flags = ("--trainer.max_epochs", "2", "--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false")
    done = installed(tmp_path, "fit", "--config", "vanillanet_digits", *flags)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "vanillanet_digits").iterdir()
    assert (run / "merged.ckpt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_folders_of_the_user_hide_no_package(installed, tmp_path):
    for name in ("callbacks", "datamodules", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package of the user')")
    done = installed(tmp_path, "compare", "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_runs_is_what_was_installed(installed, tmp_path):
    script = tmp_path / "where.py"
    script.write_text("import experiments, lit_models; print(experiments.__file__); print(lit_models.__file__)")
    done = installed(tmp_path, script=script)
    assert all(line.startswith(str(installed.target)) for line in done.stdout.split()), done.stdout
