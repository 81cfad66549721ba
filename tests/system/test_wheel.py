"""What is installed from a wheel, in an empty folder, without the repository."""

import zipfile

PACKAGES = ("lit_models", "datamodules", "callbacks", "experiments")
SHIPPED = {".css", ".html", ".py", ".yaml", ".sh", ".ipynb", ".csv", ".typed"}


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
