"""Help on one page, at once, and without a configuration."""

import re
import subprocess
import sys

import pytest

from experiments import __version__
from experiments.__main__ import main


@pytest.fixture
def printed(capsys):
    """What a command prints that ends well."""

    def run(*args):
        try:
            code = main([*args])
        except SystemExit as end:
            code = end.code
        assert code == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_page_of_a_command_is_short_and_its_flags_exist(command, printed):
    page = printed(command, "--help")
    assert len(page.splitlines()) < 65
    assert max(map(len, page.splitlines())) <= 120
    flags = set(re.findall(r"^  (--[\w.+]+)", page, re.M)) - {"--import", "--model.net.ARGUMENT"}
    assert len(flags) > 25
    everything = printed(command, "--help.all")
    everything += printed(command, "--model.help", "ImageClassifier") + printed(command, "--data.help", "Digits")
    for flag in flags:
        assert re.search(rf"{re.escape(flag)}\b|{re.escape(flag)} ", everything), flag
    for name in ("CIFARResNet", "Digits", "StochasticDepth", "`fathom recipes`"):
        assert name in page


@pytest.mark.parametrize(
    ("flag", "name", "argument"),
    [
        ("--model.help", "lit_models.ImageClassifier", "--model.label_smoothing"),
        ("--model.help", "ImageClassifier", "--model.label_smoothing"),
        ("--data.help", "Digits", "--data.batch_size"),
        ("--trainer.callbacks.help", "StochasticDepth", "survival_prob"),
    ],
)
def test_the_arguments_of_a_class_are_shown_without_a_configuration(flag, name, argument, printed):
    assert argument in printed("fit", flag, name)


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        ([], ["torch", "jsonargparse", "yaml"]),
        (["--help"], ["torch", "jsonargparse", "yaml"]),
        (["--version"], ["torch", "jsonargparse", "yaml"]),
        (["compare", "--help"], ["torch", "lightning", "matplotlib"]),
        (["recipes"], ["torch", "lightning", "matplotlib"]),
    ],
    ids=" ".join,
)
def test_a_small_command_imports_little(args, absent, repository):
    code = (
        "import sys\nfrom experiments.__main__ import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('modules', *sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=repository, capture_output=True, text=True, timeout=60, check=True
    )
    said, _, modules = ended.stdout.rpartition("modules ")
    assert said.strip()
    assert not set(absent) & set(modules.split())


def test_the_version_is_told(printed):
    assert printed("--version") == f"fathom {__version__}\n"
