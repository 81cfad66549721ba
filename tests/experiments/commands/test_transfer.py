"""The study of backbones: every combination is trained once, with its weights, frozen or not."""

import csv
import json
from itertools import product

import pytest
import torch
import yaml

from experiments.__main__ import main
from experiments.cli.consent import take_imports
from experiments.commands.transfer import RESULTS, Candidate, candidate, flags_of, paired, train
from experiments.errors import UsageError
from lit_models import Segmenter
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
    found = [(row["mode"], row["backbone"], row["task"]) for row in rows]
    assert found == list(product(("frozen", "fine-tuned"), ("random", "tiny"), ("detection", "segmentation")))
    top1 = json.loads((tiny_run / "summary.json").read_text())["metrics"]["val/top1"]
    assert [row["top1"] for row in rows] == ["", "", str(top1), str(top1)] * 2
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


def test_a_killed_run_goes_on_where_it_was(tiny_run, street_tree, tmp_path, monkeypatch):
    """Of three steps, the second and the third are done after it was killed in the second; a flag names a class."""
    (tmp_path / "my_watch.py").write_text("from lightning import Callback\n\nclass Watch(Callback): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = [*flags_of("segmentation", "fine-tuned", candidate(tiny_run)), "--data.root", str(street_tree), *QUICK]
    flags += ["--data.image_size", "48", "--trainer.max_epochs", "3", "--trainer.callbacks+=my_watch.Watch"]
    steps, step = [], Segmenter.training_step

    def killed(module, *batch):
        steps.append(module.global_step)
        if len(steps) == 2:
            raise Killed
        return step(module, *batch)

    monkeypatch.setattr(Segmenter, "training_step", killed)
    words = RESULTS / "segmentation_camvid.yaml", 3, tmp_path, flags
    with pytest.raises(Killed):
        train(*words)
    take_imports([])  # as each command begins
    run = train(*words)
    assert steps == [0, 1, 1, 2]
    assert [path.parent for path in tmp_path.glob("*/*/*/config.yaml")] == [run]
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert train(*words) == run
    assert len(steps) == 4


class Killed(BaseException):
    """As a signal would."""


@pytest.mark.parametrize(("strides", "finest"), [((1, 2, 4), "2"), ((4, 8, 16, 32), "4"), ((16,), "4")])
def test_the_pyramid_of_a_detector_has_two_maps_where_there_are_two(strides, finest):
    flags = flags_of("detection", "frozen", Candidate("standard", 0.5, "RUN", strides))
    assert flags[flags.index("--model.net.finest_stride") + 1] == finest


def test_without_images_it_says_what_it_needs(tiny_run, fathom):
    code, said = fathom("transfer", tiny_run)
    assert code == 1
    assert "--detection FOLDER" in said


def candidates(*names):
    return [Candidate(name, 0.5, f"{name}{number}", (1, 2, 4)) for number, name in enumerate(names)]


def test_runs_of_one_recipe_have_a_seed_each_and_a_single_one_has_all():
    found = [(backbone.flag, seed) for backbone, seed in paired(candidates("random", "cosine", "cosine"), [5, 7])]
    assert found == [("random0", 5), ("cosine1", 5), ("random0", 7), ("cosine2", 7)]
    with pytest.raises(UsageError, match="2 runs of cosine don't pair with 3 seeds"):
        paired(candidates("random", "cosine", "cosine"), [5, 7, 8])


@pytest.mark.parametrize(("strides", "coarsest"), [((1, 2, 4), "4"), ((4, 8, 16, 32), "8")], ids=["fine", "coarse"])
def test_a_segmenter_is_dilated_to_a_stride_of_eight(strides, coarsest):
    flags = flags_of("segmentation", "frozen", Candidate("standard", 0.5, "RUN", strides))
    assert flags[flags.index("--model.net.output_stride") + 1] == coarsest
