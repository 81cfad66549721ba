"""The merge at the end of real fits: proven, refused, failed."""

import copy
import sys
import types

import lightning as L
import pytest
import torch
from jsonargparse import set_parsing_settings
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

import callbacks.merge_at_fit_end
from callbacks import ActivationAnnealing, MergeAtFitEnd, MergeError
from callbacks.merge_proof import compare_merged
from lit_models import ImageClassifier, VanillaNet, load_checkpoint
from lit_models.settings import keeps_arguments


def merged_net() -> VanillaNet:
    return VanillaNet(4, depth=5, width=4, stem_kernel=2, stem_stride=2, series_order=1, reparameterized=True)


def test_the_final_weights_are_merged_and_proven(fit, data, tmp_path):
    merge = MergeAtFitEnd()
    trained = fit(tmp_path, ActivationAnnealing(1), merge, max_epochs=2).eval()
    report = merge.report()["merge"]
    assert report["merged"] is True
    assert report["relative_logit_difference_float64"] <= 1e-10
    assert report["relative_logit_difference_float32"] <= 1e-4
    assert report["parameters_merged"] < report["parameters_trained"]
    assert report["macs_merged"] < report["macs_trained"]

    merged = load_checkpoint(tmp_path / "merged.ckpt")
    images = data().dataset.tensors[0]
    with torch.no_grad():
        torch.testing.assert_close(merged(images), trained(images), rtol=1e-4, atol=1e-5)


def test_the_merged_checkpoint_is_tested_like_any_other(fit, data, tmp_path):
    trained = fit(tmp_path, ActivationAnnealing(1), MergeAtFitEnd(), max_epochs=2)
    trainer = L.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", enable_checkpointing=False)
    before = trainer.test(trained, data(), verbose=False)
    after = trainer.test(
        ImageClassifier(merged_net(), 4), data(), ckpt_path=tmp_path / "merged.ckpt", weights_only=True, verbose=False
    )
    assert after[0] == pytest.approx(before[0], rel=1e-4)


def test_a_fit_that_ended_before_lambda_is_one_is_not_merged(fit, tmp_path):
    merge = MergeAtFitEnd()
    with pytest.warns(UserWarning, match=r"not merged: λ is 0"):
        fit(tmp_path, ActivationAnnealing(), merge, max_epochs=2, max_steps=2)
    assert merge.report()["merge"]["merged"] is False
    assert "λ is 0" in merge.report()["merge"]["reason"]
    assert not (tmp_path / "merged.ckpt").exists()


def test_a_fit_without_validation_is_not_merged(fit, tmp_path):
    merge = MergeAtFitEnd()
    with pytest.warns(UserWarning, match="validated nothing"):
        fit(tmp_path, ActivationAnnealing(1), merge, max_epochs=2, validate=False)
    assert not (tmp_path / "merged.ckpt").exists()


def test_a_wrong_merge_fails_the_run_and_leaves_the_training_checkpoints(fit, tmp_path, monkeypatch):
    merge = MergeAtFitEnd()

    def wrong(net):
        merged = right(net)
        merged.head.first.bias.data += 1
        return merged

    right = callbacks.merge_at_fit_end.merged_copy
    monkeypatch.setattr(callbacks.merge_at_fit_end, "merged_copy", wrong)
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "last")
    with pytest.raises(MergeError, match="differs from the trained one"):
        fit(tmp_path, ActivationAnnealing(1), merge, checkpoint, max_epochs=2)
    assert not (tmp_path / "merged.ckpt").exists()
    assert (tmp_path / "last.ckpt").is_file()
    assert merge.report()["merge"]["merged"] is False


class TwoConvs(nn.Module):
    """A user's network, which can be merged; it does not know its arguments."""

    def __init__(self, bias: float = 0.0):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.bias = bias

    def forward(self, images):
        return self.second(self.first(images)).mean((2, 3)) + self.bias

    def reparameterize(self):
        if isinstance(self.second, nn.Conv2d):
            weight = torch.einsum("om,mihw->oihw", self.second.weight[:, :, 0, 0].double(), self.first.weight.double())
            self.first.weight = nn.Parameter(weight.to(self.first.weight.dtype))
            self.second = nn.Identity()


class Mergeable(TwoConvs):
    def __init__(self, reparameterized: bool = False):
        super().__init__()
        if reparameterized:
            self.reparameterize()


@keeps_arguments
class Forgetful(Mergeable):
    """Takes the argument, and does nothing about it."""

    def __init__(self, reparameterized: bool = False):
        super().__init__()


@keeps_arguments
class Different(Mergeable):
    """Something is added in the merged form, which no weight shows."""

    def __init__(self, reparameterized: bool = False):
        super().__init__(reparameterized)
        self.bias = float(reparameterized)


@pytest.fixture
def imported(monkeypatch):
    """As if the networks above lay in a module that is imported."""
    module = types.ModuleType("mergeable")
    for kind in (Different, Forgetful):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", "mergeable")
    monkeypatch.setitem(sys.modules, "mergeable", module)
    set_parsing_settings(import_path_allowlist=["mergeable"])  # a command line that ran before allows nothing else


def around(net):
    return ImageClassifier(net, 4, lr=0.01, schedule="constant")


@pytest.mark.parametrize(
    "arguments", [{"num_images": 0}, {"filename": "other.ckpt"}, {"float32_tolerance": 0.1}, {"float64_tolerance": 0.1}]
)
def test_arguments_that_would_fail_at_the_end_or_afterwards_are_refused(arguments):
    with pytest.raises(MisconfigurationException, match=str(*arguments.values())):
        MergeAtFitEnd(**arguments)


def test_the_configuration_of_an_earlier_run_names_what_is_fixed():
    MergeAtFitEnd(filename="merged.ckpt", num_images=32, float32_tolerance=0.0001, float64_tolerance=1.0e-10)


def test_a_network_that_cannot_be_built_merged_is_refused_before_it_is_trained(fit, tmp_path):
    with pytest.raises(MisconfigurationException, match=r"TwoConvs.*add an argument `reparameterized: bool = False`"):
        fit(tmp_path, MergeAtFitEnd(), module=around(TwoConvs()), max_epochs=1)
    assert not (tmp_path / "merged.ckpt").exists()


def test_a_network_of_a_user_is_merged_and_loaded(fit, data, tmp_path):
    merge = MergeAtFitEnd()
    trained = fit(tmp_path, merge, module=around(Mergeable()), max_epochs=1).eval()
    assert merge.report()["merge"]["merged"] is True
    merged = load_checkpoint(tmp_path / "merged.ckpt", net=Mergeable(reparameterized=True))
    images = data().dataset.tensors[0]
    with torch.no_grad():
        torch.testing.assert_close(merged(images), trained(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Forgetful, "could not be loaded.*does not fit the network"), (Different, "gives other logits than Different")],
)
def test_a_checkpoint_that_would_not_load_as_the_merged_network_is_not_left(kind, words, fit, imported, tmp_path):
    merge = MergeAtFitEnd()
    with pytest.raises(MergeError, match=words):
        fit(tmp_path, merge, module=around(kind()), max_epochs=1)
    assert not (tmp_path / "merged.ckpt").exists()
    assert merge.report()["merge"]["merged"] is False


def test_nan_is_a_difference():
    def broken(net):
        merged = copy.deepcopy(net)
        merged.weight.data.fill_(torch.nan)
        return merged

    with pytest.raises(MergeError, match="by nan of the largest logit"):
        compare_merged(nn.Linear(3, 2), broken, torch.ones(1, 3), "")
