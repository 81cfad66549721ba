"""A loss and a schedule of a user's, named in a configuration or given in Python."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_models import CheckpointError, CIFARResNet, ImageClassifier, load_checkpoint
from lit_models.tasks.losses import compute_loss

OBJECTIVES = '''
import math
import torch.nn.functional as F
from torch import nn
from lit_models.settings import keeps_arguments


class PolyLoss(nn.Module):
    """Poly-1 (Leng et al. 2022): cross-entropy plus epsilon times the probability that is missing."""

    def __init__(self, epsilon: float = 1.0):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits, targets):
        missing = 1 - logits.softmax(1).gather(1, targets[:, None]).mean()
        return F.cross_entropy(logits, targets) + self.epsilon * missing


def hard(logits, targets):
    return F.cross_entropy(logits, targets.argmax(1) if targets.is_floating_point() else targets)


def one_cycle(total_steps):
    return lambda step: math.sin(math.pi * (step + 1) / (total_steps + 1))


@keeps_arguments
class Triangle:
    def __init__(self, peak: float = 0.5):
        self.peak = peak

    def __call__(self, total_steps):
        top = self.peak * total_steps
        return lambda step: min((step + 1) / top, (total_steps - step) / (total_steps - top))


class Forgetful:
    def __call__(self, total_steps):
        return lambda step: 1.0
'''


@pytest.fixture
def objectives(tmp_path, monkeypatch):
    (tmp_path / "objectives.py").write_text(OBJECTIVES)
    monkeypatch.syspath_prepend(tmp_path)
    import objectives

    yield objectives
    sys.modules.pop("objectives", None)


@pytest.fixture
def run(fathom, objectives, tiny_config, tmp_path):
    """The run directory of two steps with these settings of the model."""

    def fit(**settings):
        config, runs = tmp_path / "own.yaml", tmp_path / "runs"
        config.write_text(yaml.safe_dump({"model": {"init_args": settings}}))
        flags = ["--trainer.default_root_dir", runs, "--trainer.log_every_n_steps", "1"]
        assert fathom("fit", "--config", tiny_config, "--config", config, *flags) == (0, "")
        return max(runs.glob("own/*"))

    return fit


def lrs(run_directory):
    header, *rows = [line.split(",") for line in (run_directory / "metrics.csv").read_text().splitlines()]
    return [float(row[header.index("lr")]) for row in rows if row[header.index("lr")]]


def test_a_one_cycle_schedule_and_a_poly_loss_in_yaml(run, objectives):
    poly = {"class_path": "objectives.PolyLoss", "init_args": {"epsilon": 2.0}}
    directory = run(schedule="objectives.one_cycle", loss=poly, lr=0.5)
    assert lrs(directory) == pytest.approx([0.5 * math.sin(math.pi * i / 3) for i in (1, 2)])
    hparams = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (hparams["schedule"], hparams["loss"]) == ("objectives.one_cycle", poly)
    model = load_checkpoint(directory)
    assert model.schedule is objectives.one_cycle
    assert model.loss_function.epsilon == 2.0
    logits, labels = torch.randn(5, 10), torch.arange(5)
    missing = 1 - logits.softmax(1)[range(5), labels].mean()
    torch.testing.assert_close(model.loss(logits, labels), F.cross_entropy(logits, labels) + 2 * missing)


def test_a_schedule_of_a_class_with_arguments(run, objectives, monkeypatch):
    directory = run(schedule={"class_path": "objectives.Triangle", "init_args": {"peak": 0.25}}, lr=0.5)
    assert lrs(directory) == pytest.approx([0.5 * 4 / 3, 0.5 * 2 / 3])
    assert load_checkpoint(directory).schedule.peak == 0.25
    monkeypatch.delitem(sys.modules, "objectives")
    with pytest.raises(CheckpointError, match=r"objectives\.Triangle.*import objectives first"):
        load_checkpoint(directory)


def test_nothing_is_built_that_did_not_agree_to_be(run, objectives):
    directory = run(schedule="objectives.one_cycle")
    path = directory / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for name, setting in (
        ("schedule", {"class_path": "objectives.Forgetful"}),
        ("loss", {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}),
        ("loss", "os.system"),
        ("optimizer", "objectives.one_cycle"),
    ):
        torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], name: setting}}, path)
        with pytest.raises(CheckpointError, match=r"best\.ckpt (asks for|names)"):
            load_checkpoint(path)


def test_smoothed_labels_come_to_any_loss_as_probabilities():
    seen = []
    logits, labels = torch.randn(3, 4).bfloat16(), torch.tensor([0, 1, 2])
    for epsilon in (0.0, 0.2):
        compute_loss(lambda *given: seen.append(given), logits, labels, epsilon)
    (plain, given), (_, probabilities) = seen
    assert plain.dtype == torch.float32
    assert torch.equal(given, labels)
    torch.testing.assert_close(probabilities, F.one_hot(labels, 4) * 0.8 + 0.05)


def test_in_python_they_are_described_or_refused(objectives):
    def made(**arguments):
        return ImageClassifier(CIFARResNet(8), 10, **arguments).hparams

    assert made(schedule=objectives.Triangle(0.1))["schedule"] == {
        "class_path": "objectives.Triangle",
        "init_args": {"peak": 0.1},
    }
    assert made(loss=objectives.hard)["loss"] == "objectives.hard"
    for arguments in ({"schedule": lambda steps: float}, {"schedule": objectives.Forgetful()}):
        with pytest.raises(MisconfigurationException, match="described in the checkpoint"):
            made(**arguments)
