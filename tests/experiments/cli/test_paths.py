"""Paths in a configuration are known by their types."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import pytest
import timm
import yaml
from jsonargparse import Namespace
from safetensors.torch import save_file

from experiments.cli.paths import expand_home, resolve_paths, takes_a_path


@pytest.mark.parametrize("kind", [Path, os.PathLike, Path | None, bool | Annotated[str, Path], tuple[Path, ...]])
def test_a_type_with_a_path_among_its_alternatives_is_one(kind):
    assert takes_a_path(kind)


@pytest.mark.parametrize("kind", [str, str | None, list[str], Annotated[str, "Path"], bool])
def test_other_types_are_not(kind):
    assert not takes_a_path(kind)


class Reader:
    def __init__(self, file: Path, source: str, teacher: Annotated[str, Path] | None = None) -> None: ...


def test_what_is_there_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()

    def resolved(**arguments):
        config = Namespace(a=[Namespace(class_path=f"{__name__}.Reader", init_args=Namespace(**arguments))])
        resolve_paths(config)
        return vars(config.a[0].init_args)

    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(Reader=Reader))
    file = str(tmp_path / "file")
    assert resolved(file="file", source="file", teacher="file") == {"file": file, "source": "file", "teacher": file}
    assert resolved(file="~/file", teacher="~/new") == {"file": file, "teacher": str(tmp_path / "new")}
    assert resolved(teacher=None) == {"teacher": None}
    for other in ("timm:resnet18", "s3://bucket/file", "new"):
        assert resolved(teacher=other) == {"teacher": other}


def test_a_run_from_relative_weights_goes_on_anywhere_and_without_them(fathom, tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"img_size": 8, "patch_size": 4}
    weights = timm.create_model("test_vit", in_chans=1, num_classes=3, **arguments).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    init_args = {"name": "test_vit", "pretrained": "weights.safetensors", "model_args": arguments}
    net = {"class_path": "TimmBackbone", "init_args": init_args}
    (tmp_path / "relative.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"net": net}}}))
    assert fathom("fit", "--config", tiny_config, "--config", "relative.yaml") == (0, "")
    (run_directory,) = (tmp_path / "runs" / "relative").iterdir()
    (tmp_path / "weights.safetensors").unlink()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert fathom("resume", run_directory, "--trainer.max_epochs", 2) == (0, "")
    net = yaml.safe_load((run_directory / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert net["init_args"]["pretrained"] == str(tmp_path / "weights.safetensors")  # on record
    assert fathom("test", "--ckpt_path", run_directory) == (0, "")


def test_home_is_expanded_on_every_way_to_a_setting(tiny_config, tiny_run, fathom, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (tmp_path / "work").mkdir()
    home.mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(home))
    shutil.copy(tiny_run / "checkpoints" / "last.ckpt", home / "mine.ckpt")
    config = tmp_path / "home.yaml"
    config.write_text("trainer: {default_root_dir: ~/runs}\nckpt_path: ~/mine.ckpt\n")
    assert fathom("test", "--config", tiny_config, "--config", config) == (0, "")
    assert fathom("test", "--config", tiny_config, "--ckpt_path=~/mine.ckpt", "--trainer.default_root_dir=~/b")[0] == 0
    assert fathom("explain", "--config", tiny_config, "--curve=~/curve.png") == (0, "")
    lesion = ("lesion", tiny_run, "--images", "16", "--draws", "1", "--sizes", "[1]", "--wandb.mode", "disabled")
    assert fathom(*lesion, "--out=~/out")[0] == 0
    assert fathom(*lesion, "--out=~/other", "--beside=[~/out]")[0] == 0
    assert {path.name for path in home.iterdir()} >= {"runs", "b", "curve.png", "out", "other"}
    assert list((tmp_path / "work").iterdir()) == []


def test_only_what_stands_for_home_is_expanded():
    home = str(Path.home())
    assert [expand_home(word) for word in ("~/a", "--out=~/a", "[~/a,~/b]")] == [
        *(f"{home}/a", f"--out={home}/a", f"[{home}/a,{home}/b]")
    ]
    for other in ("~", "--name=~", "a~/b", "/a/~/b", "--a=b~/c"):
        assert expand_home(other) == other
