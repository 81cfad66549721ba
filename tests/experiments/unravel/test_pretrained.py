"""The trained networks that come with Fathom."""

import json

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors import safe_open

from experiments.unravel import pretrained
from experiments.unravel.pretrained import facts_of, keep_network, pretrained_data, pretrained_files, pretrained_network
from experiments.unravel.source import initial_network, open_subject
from lit_models import CIFARResNet


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "EXPERIMENTS", tmp_path)
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
    assert type(pretrained_data("small")).__name__ == "Digits"
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


def test_missing_images_are_asked_for_by_flags_that_work(folder, tmp_path, monkeypatch):
    keep_network(CIFARResNet(num_classes=10, depth=8, width=4), folder / "small.safetensors", "CIFAR10", {})
    monkeypatch.chdir(tmp_path)
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
