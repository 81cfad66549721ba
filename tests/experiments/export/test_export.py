"""From training on digits to files that run without Fathom."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from experiments.__main__ import main
from experiments.commands.export import FORMATS
from experiments.export import onnx_file
from lit_models.checkpoints import read_checkpoint, write_atomically

CONFIG = """
model:
  class_path: lit_models.ImageClassifier
  init_args:
    net: {class_path: lit_models.VanillaNet, init_args: {depth: 5, width: 8, stem_kernel: 2, stem_stride: 2}}
    optimizer: adamw
    lr: 0.02
data:
  class_path: datamodules.Digits
  init_args: {image_size: 32, batch_size: 64, train_size: 512}
trainer:
  max_epochs: 4
  enable_progress_bar: false
  callbacks: [{class_path: callbacks.ActivationAnnealing, init_args: {epochs: 1}}]
wandb: {mode: disabled}
"""
RUNS_EACH = """
import runpy, sys
for package in ("lit_models", "datamodules", "callbacks", "experiments"):
    sys.modules[package] = None  # to import it fails
sys.argv[1:] = sys.argv[2:]
sys.path.insert(0, ".")
for script in scripts:
    print(script, end=" ")
    runpy.run_path(script)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "digits.yaml").write_text(CONFIG)
    words = ["fit", "--config", str(folder / "digits.yaml"), "--trainer.default_root_dir", str(folder / "runs")]
    assert main(words) == 0
    (run,) = (folder / "runs" / "digits").iterdir()
    return run


@pytest.fixture(scope="module")
def described(run):
    assert main(["export", str(run), "--to", ",".join(FORMATS), "--int8", "true", "--out", str(run / "described")]) == 0
    return run / "described"


@pytest.fixture(scope="module")
def embedded(run):
    words = ["--preprocess", "embed", "--out", str(run / "embedded")]
    assert main(["export", str(run), "--to", "onnx,pt2", *words]) == 0
    return run / "embedded"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "seven.png"
    Image.fromarray((load_digits().images[7] * 15).astype(np.uint8)).resize((40, 30)).save(path)
    return path


def test_all_formats_and_their_differences(described):
    report = json.loads((described / "export.json").read_text())
    int8 = report["int8"]
    assert list(report["formats"]) == list(FORMATS)
    assert all(found["relative"] <= 1e-4 for found in report["formats"].values())
    before, after = (int8["files"][name] for name in ("model.onnx", "model.int8.onnx"))
    assert int8["images"] == 359
    assert after["top1"] > before["top1"] - 0.05
    assert after["milliseconds_an_image"] > 0
    assert report["merge"] < 1e-4
    assert report["height_and_width_are_free"]
    about = json.loads((described / "preprocess.json").read_text())
    assert about["class_names"] == [str(digit) for digit in range(10)]
    assert (about["image_size"], about["resize"], len(about["mean"])) == (32, "both sides", 1)
    card = (described / "README.md").read_text()
    assert "95% interval" in card
    assert "to be filled in" in card
    assert "class_path: datamodules.Digits" in card
    assert {path.name for path in described.iterdir()} == {
        *(
            "model.onnx",
            "model.int8.onnx",
            "model.pt2",
            "model.aoti.pt2",
            "model.safetensors",
            "network.py",
            "config.json",
            "README.md",
        ),
        *("preprocess.json", "export.json"),
    }


def test_the_scripts_of_the_page_run_without_fathom(run, described, embedded, photo, repository, capsys):
    assert main(["predict", str(run), "--images", str(photo), "--out", str(run / "one.csv")]) == 0
    expected = (run / "one.csv").read_text().splitlines()[1].split(",")[2]
    page = (repository / "experiments" / "export" / "README.md").read_text(encoding="utf-8")
    scripts = dict(re.findall(r"^`(\w+\.py)`[^\n]*:\n\n```python\n(.*?)^```", page, re.M | re.S))
    bodies = [re.sub(r"^(import|from) .*\n|^\n", "", text, flags=re.M) for text in scripts.values()]
    assert max(body.count("\n") for body in bodies) <= 10
    for folder, kind in ((described, "describe"), (embedded, "embed")):
        names = [name for name in scripts if name.endswith(f"_{kind}.py")]
        for name in ("prepare.py", *names):
            (folder / name).write_text(scripts[name], encoding="utf-8")
        (folder / "each.py").write_text(f"scripts = {names}\n" + RUNS_EACH)
        done = subprocess.run(
            [sys.executable, "each.py", "each.py", str(photo)],
            cwd=folder,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(names) == {"describe": 6, "embed": 2}[kind]
        assert done.stdout.count(f"{expected}\n") == len(names), done.stdout


def refused(words, capsys):
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


def test_a_file_that_computes_something_else_is_not_left_behind(run, tmp_path, capsys, monkeypatch):
    right = onnx_file.read
    monkeypatch.setattr(onnx_file, "read", lambda folder: lambda images: 1.01 * right(folder)(images))
    code, said = refused(["export", run, "--out", tmp_path / "out"], capsys)
    assert code == 1
    assert "gives other logits than the network" in said
    assert list(tmp_path.iterdir()) == []


def changed(run, tmp_path, change):
    """The run with a checkpoint in which ``change`` has been made."""
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    state = checkpoint["state_dict"] = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
    change(state)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    write_atomically(checkpoint, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state["net.activation_lambda"].fill_(0.5), "can't be merged: λ is 0.5"),
        (lambda state: state["net.head.second.bias"].fill_(torch.nan), "head.second.bias that are not finite"),
    ],
)
def test_what_can_not_be_shipped_is_refused(change, sentence, run, tmp_path, capsys):
    path = changed(run, tmp_path, change)
    code, said = refused(["export", path, "--to", "pt2", "--out", tmp_path / "out"], capsys)
    assert code == 1
    assert sentence in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "onnx,tensorrt", "--out", "x"], "--to tensorrt: there are onnx"),
        ([], "say where to write"),
        (["--out", "."], "exists"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words, sentence, run, capsys):
    code, said = refused(["export", run, *words], capsys)
    assert code != 0
    assert sentence in said
    assert "Traceback" not in said
