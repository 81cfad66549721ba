"""What a run says of itself: all of its time, how often it was resumed, on which data and code."""

import json
import subprocess
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from PIL import Image

from callbacks import RunSummary
from callbacks.run import run_summary
from datamodules import Digits, Photos, SmallImages
from lit_models import CIFARResNet, ImageClassifier


def summary_of(path, max_epochs, ckpt_path=None, test=False, net=None, **trainer):
    module = ImageClassifier(net or CIFARResNet(8, width=4, in_channels=1), 10)
    trainer = L.Trainer(
        default_root_dir=path,
        max_epochs=max_epochs,
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=1,
        callbacks=[RunSummary()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    (trainer.test if test else trainer.fit)(module, Digits(image_size=8), ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(path / "last.ckpt")
    return json.loads((path / "summary.json").read_text())


def test_seconds_add_up_over_resumes(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 100))
    # Of the callback alone: other threads ask the time, too.
    monkeypatch.setattr(run_summary, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    first = summary_of(tmp_path / "first", 1)
    assert first["resumed"] == 0
    second = summary_of(tmp_path / "second", 2, tmp_path / "first" / "last.ckpt")
    third = summary_of(tmp_path / "third", 3, tmp_path / "second" / "last.ckpt")
    assert (second["resumed"], third["resumed"]) == (1, 2)
    assert third["seconds"] > second["seconds"] > first["seconds"] > 0
    tested = summary_of(tmp_path / "test", 3, tmp_path / "third" / "last.ckpt", test=True)
    assert tested["resumed"] == 0
    assert tested["seconds"] <= first["seconds"] + 100
    assert tested["data_fingerprint"] != first["data_fingerprint"]
    assert first["data_fingerprint"] == third["data_fingerprint"] == Digits(image_size=8).fingerprint(test=False)


def test_it_names_seed_hardware_versions_and_code(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    summary = summary_of(tmp_path, 1)
    assert summary["seed"] == 7
    assert summary["data"] == "Digits"
    assert summary["hardware"].startswith("cpu (")
    assert torch.__version__.startswith(summary["versions"]["torch"])
    assert list(tmp_path.glob(".*")) == []


def test_the_commit_is_that_of_this_code_and_not_of_the_folder_it_lies_in(tmp_path, monkeypatch):
    """As for a package installed somewhere below another repository."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    (tmp_path / "callbacks").mkdir()
    file = tmp_path / "callbacks" / "run_summary.py"
    file.write_text("")
    monkeypatch.setattr(run_summary, "__file__", str(file))
    assert (run_summary.provenance()["commit"], run_summary.provenance()["dirty"]) == (None, None)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "this"], check=True)
    assert len(run_summary.provenance()["commit"]) == 40
    assert run_summary.provenance()["dirty"] is False
    file.write_text("changed")
    assert run_summary.provenance()["dirty"] is True


@pytest.fixture
def images(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(folder / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("kind", [SmallImages, Photos])
def test_a_fingerprint_is_of_the_content_alone(kind, images, tmp_path):
    def fingerprint(root):
        return kind(str(root), image_size=8, num_workers=0).fingerprint(test=False)

    before = fingerprint(images)
    moved = images.rename(tmp_path / "elsewhere")
    for path in moved.rglob("*.png"):
        path.touch()
    assert fingerprint(moved) == before
    noise = Image.effect_noise((8, 8), 50).convert("RGB")
    noise.save(moved / "train" / "dog" / "1.png")
    changed = fingerprint(moved)
    assert changed != before
    (moved / "train" / "dog" / "1.png").rename(moved / "train" / "cat" / "3.png")
    assert fingerprint(moved) not in (before, changed)


class LooksAtValues(CIFARResNet):
    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


def test_a_network_whose_cost_depends_on_values_has_a_summary_too(tmp_path):
    net = LooksAtValues(8, width=4, in_channels=1)
    summary = summary_of(tmp_path, 1, net=net)
    assert summary["status"] == "finished"
    assert summary["parameters"] > 0
    assert "macs" not in summary
