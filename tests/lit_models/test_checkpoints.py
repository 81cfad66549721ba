"""Checkpoints are whole or refused, in a sentence, and run no code."""

import os
import sys

import pytest
import torch

from lit_models import CheckpointError, ImageClassifier, VanillaNet, load_checkpoint
from lit_models.checkpoints import classifier_checkpoint, read_checkpoint, write_atomically
from lit_models.tasks.loading import check_classes

ARGUMENTS = {"num_classes": 4, "depth": 5, "width": 4, "stem_kernel": 2, "stem_stride": 2, "series_order": 1}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "net.ckpt"
    write_atomically(classifier_checkpoint(VanillaNet(**ARGUMENTS), ARGUMENTS, lr=0.5), path)
    return path


def test_a_checkpoint_is_loaded_by_its_path_alone(checkpoint):
    model = load_checkpoint(checkpoint)
    assert isinstance(model, ImageClassifier)
    assert not model.training
    assert model.lr == 0.5
    state = read_checkpoint(checkpoint)["state_dict"]
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_a_loaded_model_still_knows_its_network(checkpoint):
    assert load_checkpoint(checkpoint).hparams["net"]["init_args"] == ARGUMENTS


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a checkpoint")


def malicious(path):
    torch.save({"state_dict": Malicious(path.parent / "ran")}, path)


def weights_alone(path):
    torch.save({"weight": torch.zeros(2)}, path)


def other_network(path):
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["net"]["init_args"]["width"] = 8
    torch.save(content, path)


def class_not_imported(path):
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["net"]["class_path"] = "antigravity.Network"
    torch.save(content, path)


BAD = [cut_short, emptied, text, malicious, weights_alone, other_network, class_not_imported]


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_checkpoint_is_refused_in_one_sentence_that_names_it(spoil, checkpoint):
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=r"net\.ckpt") as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)
    assert not (checkpoint.parent / "ran").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt"):
        load_checkpoint(tmp_path / "nowhere.ckpt")


def test_a_failed_write_leaves_what_was_there(checkpoint):
    before = checkpoint.read_bytes()
    with pytest.raises(AttributeError):
        write_atomically({"net": lambda: None}, checkpoint)  # can't be pickled
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["net.ckpt"]


def test_classes_of_this_package_are_imported_by_name(monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_models.networks.vgg", raising=False)
    check_classes("a.ckpt", {"net": {"class_path": "lit_models.networks.vgg.VGG"}})
    assert "lit_models.networks.vgg" in sys.modules
    for class_path in ("lit_models.nothing.VGG", "lit_models.networks.vgg.Nothing", "antigravity.VGG"):
        with pytest.raises(CheckpointError, match=class_path):
            check_classes("a.ckpt", {"net": {"class_path": class_path}})
    assert "antigravity" not in sys.modules
