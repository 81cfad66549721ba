"""What a checkpoint says of itself is enough to load it."""

import sys
import types

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from datamodules import Digits
from lit_models import CheckpointError, CIFARResNet, Distillation, ImageClassifier, load_checkpoint
from lit_models.networks.resnet import BasicBlock
from lit_models.settings import as_setting, keeps_arguments

CLASS_NAMES = ("zero", "os.path", *"23456789")


def net(**arguments):
    return CIFARResNet(8, in_channels=1, width=2, **arguments)


class Margin(ImageClassifier):
    """A subclass of a user's."""

    def __init__(self, *args, margin: float = 0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.margin = margin


@pytest.fixture
def fit(tmp_path):
    """Fits for one step; the path of the checkpoint."""

    def run(model):
        last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        trainer = L.Trainer(max_steps=1, limit_val_batches=0, callbacks=[last], default_root_dir=tmp_path, **quiet)
        trainer.fit(model, Digits(image_size=8, batch_size=4))
        return tmp_path / "last.ckpt"

    return run


@pytest.fixture
def importable(monkeypatch):
    """As if ``Margin`` lay in a module of its own that is imported."""
    module = types.ModuleType("margins")
    module.Margin = Margin
    monkeypatch.setattr(Margin, "__module__", "margins")
    monkeypatch.setitem(sys.modules, "margins", module)


def assert_equal_to(loaded, model):
    assert type(loaded) is type(model)
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_fit_in_python_needs_no_network_to_be_loaded(fit):
    facts = {"class_names": CLASS_NAMES, "mean": (0.5,), "std": (0.2,), "image_size": 8}
    model = ImageClassifier(net(shortcut="B"), num_classes=10, lr=0.3, **facts)
    path = fit(model)
    assert torch.load(path, weights_only=True)["hyper_parameters"]["net"] == {
        "class_path": "lit_models.networks.resnet.CIFARResNet",
        "init_args": {"depth": 8, "in_channels": 1, "width": 2, "shortcut": "B"},
    }
    loaded = load_checkpoint(path)
    assert_equal_to(loaded, model)
    assert loaded.lr == 0.3
    assert {name: loaded.hparams[name] for name in facts} == facts
    assert_equal_to(load_checkpoint(path, net=net(shortcut="B")), model)
    assert_equal_to(ImageClassifier.load_from_checkpoint(path, weights_only=True).eval(), model)  # Lightning's own


def test_a_run_directory_is_its_best_checkpoint_or_its_last(tiny_run, tmp_path):
    best, last = (tiny_run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert_equal_to(load_checkpoint(tiny_run), load_checkpoint(best))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to(last)
    assert_equal_to(load_checkpoint(str(tmp_path)), load_checkpoint(last))
    with pytest.raises(FileNotFoundError, match="checkpoints is no run directory"):
        load_checkpoint(tmp_path / "checkpoints")


def test_the_subclass_that_was_trained_comes_back(fit, importable, monkeypatch):
    path = fit(Margin(net(), 10, margin=0.25))
    loaded = load_checkpoint(path)
    assert type(loaded) is Margin
    assert loaded.margin == 0.25
    monkeypatch.delitem(sys.modules, "margins")
    with pytest.raises(CheckpointError, match=r"margins\.Margin.*import margins first"):
        load_checkpoint(path)


def test_a_distillation_comes_back_without_its_teacher(fit, tmp_path):
    teacher = fit(ImageClassifier(net(), 10)).rename(tmp_path / "teacher.ckpt")
    path = fit(Distillation(net(), 10, str(teacher), temperature=4.0, lr=0.2))
    teacher.unlink()
    loaded = load_checkpoint(path)
    assert type(loaded) is Distillation
    assert (loaded.temperature, loaded.lr) == (4.0, 0.2)


def test_a_network_that_does_not_know_its_arguments_is_asked_for(fit):
    foreign = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model = ImageClassifier(foreign, 10)
    path = fit(model)
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not describe its network.*pass it as `net`"):
        load_checkpoint(path)
    again = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    loaded = load_checkpoint(path, net=again)
    assert_equal_to(loaded, model)
    assert loaded.net is again


def test_a_setting_the_class_does_not_take_is_one_sentence(fit):
    path = fit(ImageClassifier(net(), 10))
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["net"]["init_args"]["colour"] = 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not describe.*colour") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_arguments_are_those_of_the_constructor_called():
    @keeps_arguments
    class Base:
        def __init__(self, a, *, b=2, **rest): ...

    class Silent(Base):
        def __init__(self):
            super().__init__(1)

    assert Base(1, b=(1, [2]), c={"d": None}).constructor_arguments == {"a": 1, "b": (1, [2]), "c": {"d": None}}
    assert not hasattr(Silent(), "constructor_arguments")
    for value in (Silent(), Base(1), lambda: None, object(), [object()]):
        with pytest.raises(TypeError):
            as_setting(value)
    assert as_setting({"block": BasicBlock}) == {"block": "lit_models.networks.resnet.BasicBlock"}
