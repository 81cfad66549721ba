"""The trained networks that come with Fathom."""

import json

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from safetensors import safe_open

from experiments.cli import pretrained
from experiments.cli.pretrained import facts_of, keep_network, pretrained_files, pretrained_network
from experiments.unravel.source import initial_network, open_subject
from lit_models import CIFARResNet


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "EXPERIMENTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    return tmp_path / "paper" / "pretrained"


def test_a_kept_network_is_the_network_but_for_rounded_kernels(folder):
    net = CIFARResNet(num_classes=10, depth=8, width=4).eval()
    net.get_submodule("bn1").running_var.fill_(1e-6)  # float16 would round it by 5%
    keep_network(net, folder / "small.safetensors", "Digits", {"trained": "not at all"})
    again = pretrained_network("small").eval()
    for (name, before), after in zip(net.state_dict().items(), again.state_dict().values(), strict=True):
        assert after.dtype == before.dtype
        assert torch.equal(after, before.half().float() if before.ndim > 1 else before), name
    assert "| trained | not at all |" in (folder / "small.md").read_text()
    assert facts_of(folder / "small.safetensors") == {"trained": "not at all"}


def test_it_is_opened_with_its_data_and_begins_anew(folder):
    net = CIFARResNet(num_classes=10, in_channels=1, depth=8, width=4)
    keep_network(net, folder / "small.safetensors", "Digits", {})
    subject = open_subject("pretrained:small")
    assert subject.name == "small"
    assert type(subject.data).__name__ == "Digits"
    first, second = (initial_network("pretrained:small", subject, seed).conv1.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_misspelt_name_is_one_sentence(folder):
    keep_network(CIFARResNet(num_classes=10, depth=8, width=4), folder / "small.safetensors", "Digits", {})
    with pytest.raises(MisconfigurationException, match=r"no network pretrained:small2; did you mean small\?"):
        open_subject("pretrained:small2")


@pytest.fixture
def small(folder):
    keep_network(
        CIFARResNet(num_classes=10, in_channels=1, depth=8, width=4), folder / "small.safetensors", "Digits", {}
    )


def test_it_is_tested_and_predicts_as_a_run_does(small, fathom, tmp_path):
    assert fathom("test", "--ckpt_path=pretrained:small", "--trainer.logger", "false") == (0, "")
    (test,) = tmp_path.glob("runs/pretrained/small/test/*")
    assert "test/top1" in json.loads((test / "summary.json").read_text())["metrics"]
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    assert fathom("predict", "pretrained:small", "--images", tmp_path / "black.png", "--out", "table.csv") == (0, "")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 2


def test_a_fit_starts_from_it_where_a_file_says_so(small, tiny_config, fathom, tmp_path):
    (tmp_path / "weights.yaml").write_text("model: {init_args: {weights: pretrained:small}}")
    assert fathom("explain", "--config", tiny_config, "--config", "weights.yaml") == (0, "")
    assert (tmp_path / "runs" / "pretrained" / "small" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(("command", "flags"), [("resume", []), ("fit", ["--ckpt_path"])])
def test_no_training_goes_on_from_it(small, command, flags, fathom):
    code, sentence = fathom(command, *flags, "pretrained:small")
    assert code == 1
    assert "training can go on from" in sentence


def test_missing_images_are_asked_for_by_flags_that_work(folder):
    keep_network(CIFARResNet(num_classes=10, depth=8, width=4), folder / "small.safetensors", "CIFAR10", {})
    with pytest.raises(MisconfigurationException, match=r"with it: --data CIFAR10 --data\.root FOLDER\.$"):
        open_subject("pretrained:small")


def test_those_that_come_with_fathom_load_and_are_small():
    files = pretrained_files()
    assert {"resnet20_cifar10", "plain20_cifar10"} <= files.keys()
    for name, path in files.items():
        assert path.stat().st_size <= 2_000_000
        assert path.with_suffix(".md").is_file()
        with torch.inference_mode():
            assert pretrained_network(name).eval()(torch.rand(2, 3, 32, 32)).isfinite().all()
        with safe_open(path, framework="pt") as file:
            assert json.loads(file.metadata()["arguments"])["num_classes"] == 10
