"""What the README says is true of a wheel in an empty folder."""

import re
import shutil

import pytest

QUICK = ("--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false", "--trainer.max_steps", "2")


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def copy(installed, tmp_path):
    """The installed packages, in a copy that a test may add files to, and its ``fathom``."""
    target = shutil.copytree(installed.target, tmp_path / "target")
    (tmp_path / "empty").mkdir()

    def fathom(*args):
        done = installed(tmp_path / "empty", *args, target=target)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return target, fathom


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_two_files_make_a_network_that_trains(readme, copy):
    target, fathom = copy
    section = readme.split("\n## Adding to it\n")[1]
    files = dict(re.findall(r"`(\S+\.(?:py|yaml))`:\n+```\w+\n(.*?)```", section, re.DOTALL))
    assert sorted(path.split("/")[0] for path in files) == ["experiments", "lit_models"]
    for path, text in files.items():
        (target / path).parent.mkdir(exist_ok=True)
        (target / path).write_text(text)
    (command,) = re.findall(r"`fathom (fit --config \w+)` trains it", section)
    fathom(*command.split(), *QUICK)
    (run,) = (target.parent / "empty" / "runs").glob("lenet_digits/*")
    fathom("test", "--ckpt_path", run, "--wandb.mode", "disabled")
    assert [path.name for path in (run / "test").glob("*/summary.json")]


def test_an_evening_on_a_laptop(readme, copy):
    """Every command, on 64 digits instead of CIFAR-10 and for one epoch."""
    target, fathom = copy
    (evening,) = (block for block in blocks(readme, "bash") if "fathom lesion" in block)
    lines = [line.split("#")[0].strip() for line in evening.replace("\\\n", " ").splitlines()]
    commands = [line.removeprefix("fathom ").replace("'", "").split() for line in lines if line.startswith("fathom ")]
    assert len(commands) == 8
    small = ("--data", "Digits", "--data.image_size", "8", "--model.net.init_args.depth", "8")
    for command in commands:
        if command[0] == "fit":
            words = drop(command, "--data.root", "--data.download", "--data.train_size", "--trainer.max_epochs")
            words += [*small, *QUICK[:-2], "--trainer.max_epochs", "1", "--data.train_size", "64"]
        else:
            words = [newest_run(target.parent / "empty", word) if word.endswith("/RUN") else word for word in command]
            if command[0] in ("lesion", "paths"):
                words += ["--images", "8", "--wandb.mode", "disabled"]
            elif command[0] == "test":
                words += ["--wandb.mode", "disabled"]
            if command[0] == "lesion":
                words += ["--draws", "1"]
            if command[0] == "paths":
                words += ["--samples", "2", "--batch_size", "8"]
        fathom(*words)
    runs = target.parent / "empty" / "runs"
    assert {path.name for path in runs.iterdir()} == {"resnet20_cifar10", "resnet20_stochastic_depth"}


def drop(command, *flags):
    """``command`` without these flags and their values."""
    kept, words = [], iter(command)
    for word in words:
        if word in flags:
            next(words)
        else:
            kept.append(word)
    return kept


def newest_run(folder, word):
    return str(max((folder / word.removesuffix("/RUN")).iterdir(), key=lambda path: path.name))


def test_the_python_of_the_readme_runs(readme, tiny_run):
    (code,) = blocks(readme, "python")[:1]
    assert "load_checkpoint" in code
    names = {}
    exec(code.replace("runs/resnet20_cifar10/RUN", str(tiny_run)).replace("zeros(1, 3", "zeros(1, 1"), names)
    assert names["probabilities"].shape == (1, 10)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "experiments/*/README.md"])
def test_links_and_pictures_are_there(repository, page):
    pages = list(repository.glob(page))
    assert pages
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("http") or (path.parent / link).exists(), f"{path}: {link}"
        for config in re.findall(r"--config ([a-z]\w+)", text):
            assert list(repository.glob(f"experiments/*/{config}.yaml")) or "lenet" in config


NETWORK = """
from torch import nn
class Perceptron(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
        self.layers(__import__("torch").zeros(1, 1, 8, 8))
    def forward(self, images):
        return self.layers(images)
"""
CALLBACK = """
import lightning as L
class CountsSteps(L.Callback):
    steps = 0
    def on_train_batch_end(self, *_):
        self.steps += 1
    def report(self):
        return {"steps_counted": self.steps}
"""
DATA_SET = """
import torch
from datamodules.pipeline.in_memory import InMemoryImages
class Stripes(InMemoryImages):
    num_classes, in_channels, image_size, mean, std, class_names = 2, 1, 8, (0.5,), (0.5,), ["rows", "columns"]
    def read(self, test):
        images = torch.zeros(40, 8, 8, 1, dtype=torch.uint8)
        images[:20, ::2], images[20:, :, ::2] = 255, 255
        return images, torch.arange(40) // 20
"""
COMMAND = '''"""Say how many there are."""
def count(things: int = 3) -> None:
    """Say how many there are.

    Args:
        things: number of things
    """
    print(f"there are {things}")
'''
RECIPE = """
model: {init_args: {net: Perceptron}}
data: Stripes
trainer: {max_epochs: 1, callbacks: [CountsSteps]}
"""


def test_a_file_in_a_room_is_enough(copy):
    """A network, a callback, a data set, a command and a paper: each is one file, known by its name."""
    target, fathom = copy
    (target / "lit_models" / "networks" / "perceptron.py").write_text(NETWORK)
    (target / "callbacks" / "counts_steps.py").write_text(CALLBACK)
    (target / "datamodules" / "stripes.py").write_text(DATA_SET)
    (target / "experiments" / "commands" / "count.py").write_text(COMMAND)
    (target / "experiments" / "perceptron").mkdir()
    (target / "experiments" / "perceptron" / "stripes.yaml").write_text(RECIPE)
    assert "say how many there are" in fathom("--help")
    assert fathom("count", "--things", "5") == "there are 5\n"
    assert "stripes" in fathom("recipes")
    fathom("fit", "--config", "stripes", *QUICK)
    (summary,) = (target.parent / "empty" / "runs").glob("stripes/*/summary.json")
    assert '"steps_counted": 1' in summary.read_text()
