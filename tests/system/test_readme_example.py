"""The example of the README: a new network is two files."""

import re

import pytest
import torch
import yaml

import lit_models
from experiments.__main__ import main
from lit_models import load_checkpoint


@pytest.fixture
def example(repository):
    """The files under "Adding to it": a fenced block each, after a line that ends with its path."""
    section = (repository / "README.md").read_text().split("\n## Adding to it\n")[1].split("\n## ")[0]
    blocks = re.findall(r"`(\S+\.(?:py|yaml))`[^`\n]*:?\n+```\w+\n(.*?)```", section, re.DOTALL)
    return dict(blocks)


def test_two_files_make_a_network_that_trains_and_loads(example, tmp_path, monkeypatch, capsys):
    assert sorted(path.split("/")[0] for path in example) == ["experiments", "lit_models"]
    for path, text in example.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    # As if the two lay in the repository.
    monkeypatch.setattr(lit_models, "__path__", [*lit_models.__path__, str(tmp_path / "lit_models")])
    (config,) = (tmp_path / "experiments").glob("*.yaml")
    quick = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false"]
    runs = ["--trainer.default_root_dir", str(tmp_path / "runs")]
    assert main(["fit", "--config", str(config), "--trainer.max_steps", "1", *quick, *runs]) == 0, capsys.readouterr()
    (run,) = (tmp_path / "runs").glob("*/*")
    class_path = yaml.safe_load(config.read_text())["model"]["init_args"]["net"]["class_path"]
    monkeypatch.delitem(__import__("sys").modules, class_path.rpartition(".")[0])
    model = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert type(model.net).__name__ == class_path.rpartition(".")[2]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
