"""No code runs because a file says so, nobody else writes into a run, and no secret gets out of the environment."""

import os
import shutil
import stat
import sys

import pytest
import torch
import yaml

from experiments.__main__ import main

SECRET = "CANARY" + "0123456789abcdef" * 2 + "00"


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A module that can be imported, leaves a mark when it is, and has a network, a callback and a function."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "foreignnets.py").write_text(
        "import lightning, lit_models, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Net(lit_models.CIFARResNet): pass\n"
        "class Callback(lightning.Callback): pass\n"
        "def function(*arguments): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield tmp_path / "imported"
    sys.modules.pop("foreignnets", None)


@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny" / "copy")


def callback(config):
    config["trainer"]["callbacks"] = [{"class_path": "foreignnets.Callback"}]


def callback_as_text(config):
    config["trainer"]["callbacks"] = ["foreignnets.Callback"]


def function(config):
    spec = {
        "class_path": "lightning.pytorch.callbacks.LambdaCallback",
        "init_args": {"on_test_start": "foreignnets.function"},
    }
    config["trainer"]["callbacks"] = [spec]


def command(config):
    spec = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_test_start": "os.system"}}
    config["trainer"]["callbacks"] = [spec]


def data(config):
    config["data"] = {"class_path": "foreignnets.Data"}


def within_any(config):
    config["model"]["init_args"]["optimizer_args"] = {"x": {"class_path": "foreignnets.Net"}}


def function_of_torch(config):
    """That runs its argument."""
    arguments = {"body": {"_code": "forward = None"}, "import_block": "import foreignnets\n"}
    graph = {"class_path": "torch.fx.graph_module.reduce_graph_module", "init_args": arguments}
    config["model"]["init_args"]["net"] = {"class_path": "torch.nn.DataParallel", "init_args": {"module": graph}}


def reader_of_pickles(config):
    config["weights_only"] = False
    config["trainer"]["plugins"] = [{"class_path": "lightning.pytorch.plugins.io.TorchCheckpointIO"}]


def strategy(config):
    config["trainer"]["strategy"] = "foreignnets.Callback"


SPOIL = [
    callback,
    callback_as_text,
    function,
    command,
    data,
    within_any,
    strategy,
    function_of_torch,
    reader_of_pickles,
]


@pytest.mark.parametrize("spoil", SPOIL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("words", [("test", "--ckpt_path", "checkpoints/last.ckpt"), ("resume", "")])
def test_the_configuration_of_a_run_brings_no_code(spoil, words, copy, foreign, fathom):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    spoil(config)
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "summary.json").unlink()  # which says that the run is finished
    *command, path = words
    code, sentence = fathom(*command, copy / path)
    assert code in (1, 2)
    assert any(name in sentence for name in ("foreignnets", "system", "reduce_graph_module", "TorchCheckpointIO"))
    assert not foreign.exists()


@pytest.mark.parametrize("command", ["test", "explain"])
def test_nor_does_a_checkpoint(command, tiny_config, copy, foreign, fathom):
    path = copy / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    config = {"model": {"init_args": {}}}
    function_of_torch(config)
    content["hyper_parameters"]["net"] = config["model"]["init_args"]["net"]
    torch.save(content, path)
    code, sentence = fathom(command, "--config", tiny_config, "--ckpt_path", path)
    assert code == 1
    assert "names torch.fx.graph_module.reduce_graph_module" in sentence
    assert not foreign.exists()


def test_nor_does_what_a_run_was_begun_from(copy, foreign, fathom):
    """A resumed run without a checkpoint reads the one that its configuration names, as tensors and primitives."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(foreign),)

    torch.save(Evil(), copy / "evil.pt")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"ckpt_path": str(copy / "evil.pt")}))
    shutil.rmtree(copy / "checkpoints")
    (copy / "summary.json").unlink()
    code, sentence = fathom("resume", copy)
    assert code == 1
    assert sentence.startswith(f"{copy / 'evil.pt'} is not opened, since it asks for")
    assert not foreign.exists()


def test_nor_does_another_file_it_points_to(copy, foreign, fathom):
    (copy / "more.yaml").write_text("class_path: foreignnets.Callback\n")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["trainer"]["callbacks"] = [str(copy / "more.yaml")]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert fathom("test", "--ckpt_path", copy / "checkpoints" / "last.ckpt")[0] in (1, 2)
    assert not foreign.exists()


def test_what_the_user_names_is_imported(tiny_config, foreign, fathom, tmp_path):
    """In a flag, as --import, or in a file given as --config, each time for that command alone."""
    runs = ("--trainer.default_root_dir", tmp_path / "own")
    net = ("--model.net", "foreignnets.Net", "--model.net.init_args.depth", 8, "--model.net.init_args.width", 4)
    assert fathom("fit", "--config", tiny_config, *net, *runs)[0] == 0
    assert foreign.exists()
    (run_directory,) = (tmp_path / "own").glob("tiny/*")
    config = run_directory / "config.yaml"
    refusal = f"{config} names foreignnets.Net, which is not part of Fathom: if you trust it, add --import foreignnets"
    consent = ("--import", "foreignnets")
    test = ("test", "--ckpt_path", run_directory)
    assert fathom(*test) == (1, refusal)
    assert fathom(*test, *consent)[0] == 0
    assert fathom(*test) == (1, refusal)
    assert fathom(*test, "--config", config)[0] == 0
    assert fathom("resume", run_directory) == (1, refusal)
    assert fathom("resume", run_directory, *consent)[0] == 0
    small = ("--images", 20, "--draws", 0, "--runs", "[]", "--wandb.mode", "disabled")
    for command in (("lesion", run_directory, *small), ("reorder", run_directory, "--swaps", "[1]", "--draws", 1)):
        code, sentence = fathom(*command)
        assert (code, sentence.split(": ")[-1]) == (1, "if you trust it, add --import foreignnets")
    assert fathom("lesion", run_directory, *small, *consent)[0] == 0


def test_a_path_that_looks_like_a_name_is_none(copy, foreign, fathom, monkeypatch):
    """A checkpoint in a folder called like a module doesn't name the module."""
    evil = copy.parent / "foreignnets.Net"
    shutil.copytree(copy, evil)
    path = evil / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["net"]["class_path"] = "foreignnets.Net"
    torch.save(content, evil / "foreignnets.ckpt")
    monkeypatch.chdir(evil)
    code, sentence = fathom("test", "--ckpt_path", "foreignnets.ckpt")
    assert code == 1
    assert "foreignnets.ckpt names foreignnets.Net" in sentence
    assert not foreign.exists()


@pytest.fixture
def run_with_secrets(tiny_config, tmp_path, monkeypatch, capsys):
    """A whole run with W&B offline, in a careless shell with secrets in its environment; and what it printed."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    before = os.umask(0)
    try:
        runs = ("--trainer.default_root_dir", str(tmp_path / "runs"))
        assert main(["fit", "--config", str(tiny_config), "--wandb.mode", "offline", *runs]) == 0
    finally:
        os.umask(before)
    printed = capsys.readouterr()
    return tmp_path / "runs", printed.out + printed.err


def test_no_secret_gets_out_and_nobody_else_writes_into_a_run(run_with_secrets):
    runs, printed = run_with_secrets
    files = [path for path in runs.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.suffix for path in files} >= {".ckpt", ".yaml", ".csv", ".json", ".wandb", ".log"}
    assert SECRET not in printed
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    for path in (runs, *runs.rglob("*")):
        assert path.is_symlink() or not path.stat().st_mode & stat.S_IWOTH, path
