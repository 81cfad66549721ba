"""The merge at the end of real fits: proven, refused, failed."""

import lightning as L
import pytest
import torch

import callbacks.merge_at_fit_end
from callbacks import ActivationAnnealing, MergeAtFitEnd, MergeError
from lit_models import ImageClassifier, VanillaNet, load_checkpoint


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

    merged = load_checkpoint(tmp_path / "merged.ckpt", net=merged_net())
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
        fit(tmp_path, ActivationAnnealing(1), merge, max_epochs=2, max_steps=2)
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
