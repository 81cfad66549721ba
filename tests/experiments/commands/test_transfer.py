"""The study of backbones: every combination is trained once, with its weights, frozen or not."""

import csv
import json

import pytest
import torch
import yaml

from experiments.__main__ import main
from lit_models.checkpoints import read_checkpoint

QUICK = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--wandb.mode", "disabled"]
QUICK += ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--data.batch_size", "2"]


@pytest.fixture
def study(tiny_run, voc_tree, street_tree, tmp_path):
    """Runs it with one backbone and one seed: exit code."""

    def run(*flags):
        folders = ["--detection", str(voc_tree), "--segmentation", str(street_tree)]
        sizes = ["--images", "4", "--seeds", "3", "--data.image_size", "48"]
        places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
        return main(["transfer", str(tiny_run), *folders, *sizes, *places, *QUICK, *flags])

    return run


def test_one_command_makes_a_table_and_a_plot_of_backbones_frozen_and_fine_tuned(study, tiny_run, tmp_path):
    assert study() == 0
    with (tmp_path / "results" / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["backbone"], row["task"], row["mode"]) for row in rows]
    modes = [(task, mode) for task in ("detection", "segmentation") for mode in ("frozen", "fine-tuned")]
    assert found == [(backbone, *rest) for backbone in ("random", "tiny") for rest in modes]
    top1 = json.loads((tiny_run / "summary.json").read_text())["metrics"]["val/top1"]
    assert [row["top1"] for row in rows] == [""] * 4 + [str(top1)] * 4
    assert all(0 <= float(row["score"]) <= 1 and row["train_images"] == "4" for row in rows)
    assert 0 < (tmp_path / "results" / "transfer.png").stat().st_size < 400_000

    weight = read_checkpoint(tiny_run / "checkpoints" / "best.ckpt")["state_dict"]["net.conv1.weight"]
    kept = {}
    for config in (tmp_path / "runs").glob("*/*/*/config.yaml"):
        model = yaml.safe_load(config.read_text())["model"]["init_args"]
        state = read_checkpoint(config.parent / "checkpoints" / "last.ckpt")["state_dict"]
        own = state["net.backbone.net.conv1.weight"].sum(1, keepdim=True)
        frozen = model["net"]["init_args"]["frozen_stages"] > 0
        kept[frozen, model["weights"] is not None] = torch.allclose(own, weight.sum(1, keepdim=True), atol=1e-6)
    assert kept == {(True, True): True, (True, False): False, (False, True): False, (False, False): False}

    runs = sorted((tmp_path / "runs").glob("*/*/*"))
    assert study() == 0
    assert sorted((tmp_path / "runs").glob("*/*/*")) == runs


def test_without_images_it_says_what_it_needs(tiny_run, fathom):
    code, said = fathom("transfer", tiny_run)
    assert code == 1
    assert "--detection FOLDER" in said
