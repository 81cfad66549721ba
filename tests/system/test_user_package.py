"""A package of the user's beside the installed ``fathom``, each command in a process of its own."""

import os
import subprocess
import sys

import pytest

NET = """
from lit_models import CIFARResNet


class MyNet(CIFARResNet):
    def __init__(self, num_classes: int, in_channels: int):
        super().__init__(8, num_classes, in_channels, width=4)
"""
CONFIG = """
model: {init_args: {net: {class_path: my_lab.nets.MyNet}}}
data: {class_path: Digits, init_args: {image_size: 8, batch_size: 32, train_size: 64}}
trainer: {max_steps: 1, limit_val_batches: 1, limit_test_batches: 1, enable_progress_bar: false}
wandb: {mode: disabled}
"""


@pytest.fixture
def folder(tmp_path):
    """With a package, a configuration, and folders that are called like those of Fathom."""
    for name in ("my_lab", "callbacks", "datamodules", "experiments"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("")
    (tmp_path / "work" / "callbacks" / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "work" / "my_lab" / "nets.py").write_text(NET)
    (tmp_path / "work" / "mine.yaml").write_text(CONFIG)
    return tmp_path / "work"


@pytest.fixture
def fathom(folder, repository):
    """Runs a command from ``folder`` as an installed script does: exit code, stderr."""
    script = folder.parent / "fathom"
    script.write_text("import sys\nfrom experiments.__main__ import main\nsys.exit(main())\n")

    def run(*words):
        ended = subprocess.run(
            [sys.executable, script, *map(str, words)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return ended.returncode, ended.stderr

    return run


def test_a_network_of_the_users_works_in_every_command(folder, fathom):
    code, said = fathom("fit", "--config", "mine.yaml")
    assert code == 0, said
    (run_directory,) = (folder / "runs" / "mine").iterdir()
    lesion = ("lesion", run_directory, "--images", 20, "--draws", 0, "--runs", "[]", "--wandb.mode", "disabled")
    code, said = fathom(*lesion)
    assert code == 1
    assert said.endswith("which is not part of Fathom: if you trust it, add --import my_lab\n")
    for command in (lesion, ("test", "--ckpt_path", run_directory), ("resume", run_directory)):
        code, said = fathom(*command, "--import", "my_lab")
        assert code == 0, said
    assert (run_directory / "unravel" / "lesion.csv").is_file()
    assert len(list(run_directory.glob("test/*/summary.json"))) == 1


def test_no_folder_of_the_users_hides_one_of_fathom(folder, fathom):
    code, said = fathom("explain", "--config", "vanillanet_digits")
    assert code == 0, said
