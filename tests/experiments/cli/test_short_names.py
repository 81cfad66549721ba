"""Every class in the folders of networks, tasks, data sets and callbacks is known by its name."""

import pytest
import yaml

import callbacks
import datamodules
import lit_models
from experiments.cli.short_names import known_classes, load, with_full_names

NEW = """
from torch import nn


class Brandnew(nn.Module):
    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))

    def forward(self, images):
        return self.layers(images)
"""


def test_every_public_class_is_known_by_its_public_path():
    known = {
        name: path for setting in ("model", "net", "data", "callbacks") for name, path in known_classes(setting).items()
    }
    expected = {
        name: f"{package.__name__}.{name}"
        for package in (lit_models, datamodules, callbacks)
        for name in package.__all__
        if isinstance(getattr(package, name), type) and not name.endswith("Error")
    }
    assert len(expected) > 25
    assert expected.items() <= known.items()


def test_short_names_are_expanded_where_a_class_is_expected():
    text = "model: {class_path: Distillation, init_args: {net: {class_path: ResNet}, teacher: ResNet}}\ndata: Digits\n"
    text += "trainer: {callbacks: [StochasticDepth, {class_path: WeightAveraging}]}\nwandb: {group: Digits}"
    assert load(text) == {
        "model": {
            "class_path": "lit_models.Distillation",
            "init_args": {"net": {"class_path": "lit_models.ResNet"}, "teacher": "ResNet"},
        },
        "data": "datamodules.Digits",
        "trainer": {"callbacks": ["callbacks.StochasticDepth", {"class_path": "callbacks.WeightAveraging"}]},
        "wandb": {"group": "Digits"},
    }
    flags = ["--model.net", "ResNet", "--data=Digits", "--wandb.group", "Digits", "--data.help", "SVHN"]
    expected = ["--model.net", "lit_models.ResNet", "--data=datamodules.Digits", "--wandb.group", "Digits"]
    assert with_full_names(flags) == [*expected, "--data.help", "datamodules.SVHN"]


@pytest.fixture
def brandnew(tmp_path, monkeypatch):
    """A new file in the folder of networks, which nothing else mentions."""
    from lit_models import networks

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "brandnew.py").write_text(NEW)
    monkeypatch.setattr(networks, "__path__", [*networks.__path__, str(tmp_path / "folder")])
    known_classes.cache_clear()
    yield
    known_classes.cache_clear()


def test_a_new_file_in_a_folder_is_enough(brandnew, fathom, tmp_path):
    warmup = {"class_path": "LearningRateWarmup", "init_args": {"epochs": 1}}
    config = {
        "model": {"init_args": {"net": "Brandnew"}},
        "data": {"class_path": "Digits", "init_args": {"image_size": 8, "train_size": 64}},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "callbacks": [warmup]},
        "wandb": {"mode": "disabled"},
    }
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(config))
    runs = tmp_path / "runs"
    assert fathom("fit", "--config", tmp_path / "new.yaml", "--trainer.default_root_dir", runs) == (0, "")
    (run_directory,) = runs.glob("new/*")
    resolved = yaml.safe_load((run_directory / "config.yaml").read_text())
    assert resolved["model"]["init_args"]["net"]["class_path"] == "lit_models.networks.brandnew.Brandnew"
    assert resolved["data"]["class_path"] == "datamodules.Digits"
    assert fathom("test", "--ckpt_path", run_directory) == (0, "")
