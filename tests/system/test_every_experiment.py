"""Every YAML in experiments/ takes a real step: finite loss, gradients everywhere, a checkpoint that loads.

Digits stand in for data sets that may not be here; all else is as the YAML has it.
"""

from pathlib import Path

import lightning as L
import pytest
import torch

from experiments.cli.command_line import FathomCLI
from experiments.cli.recipes import recipes
from experiments.commands.explain import explanation
from lit_models import CIFARResNet, ResNet, load_checkpoint
from lit_models.checkpoints import classifier_checkpoint, write_atomically

EXPERIMENTS = list(recipes().values())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_takes_a_step(path, tmp_path, monkeypatch, request):
    seen = {}

    def record(module, optimizer):
        seen["gradients"] = {
            name: parameter.grad is not None and bool(parameter.grad.isfinite().all())
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and not _is_shut(module, name)
        }

    monkeypatch.setattr(L.LightningModule, "on_before_optimizer_step", record)
    stand_in = ["--data.batch_size", "4", "--data.num_workers", "0"]
    if path.parent.name == "transfer":
        stand_in += scenes(path.stem, tmp_path, request.getfixturevalue)
    else:
        stand_in = ["--data", "datamodules.Digits", *stand_in]
    if "imagenet" in path.stem:
        stand_in += ["--data.image_size", "224"]
    if path.stem.startswith("vanillanet") and "imagenet" in path.stem:
        # 82 million parameters and their average take gigabytes and a minute.
        stand_in += ["--model.net.init_args.width", "16"]
    if "distilled" in path.stem:
        stand_in += ["--model.teacher", teacher(tmp_path / "teacher.ckpt")]
    cli = FathomCLI(
        [
            *("fit", "--config", path.stem, *stand_in, "--wandb.mode", "disabled"),
            *("--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--trainer.log_every_n_steps", "1"),
            *("--trainer.accumulate_grad_batches", "1", "--trainer.enable_progress_bar", "false"),
            *("--trainer.default_root_dir", str(tmp_path)),
        ]
    )
    assert cli.trainer.global_step == 1
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    assert len(seen["gradients"]) > 5
    explained = explanation(cli.trainer)
    assert explained["batch"].startswith("4 images a step")
    assert explained["steps"].startswith("1 in all")
    assert all(seen["gradients"].values()), [name for name, there in seen["gradients"].items() if not there]

    (last,) = tmp_path.glob("*/*/checkpoints/last.ckpt")
    loaded = load_checkpoint(last)
    trained = cli.model.cpu().state_dict()
    assert loaded.state_dict().keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in loaded.state_dict().items())


def teacher(path: Path) -> str:
    """A checkpoint to learn from, of a network that has learned nothing."""
    net_args = {"depth": 8, "num_classes": 10, "in_channels": 1}
    write_atomically(classifier_checkpoint(CIFARResNet(**net_args), net_args), path)
    return str(path)


def scenes(name: str, folder: Path, tree) -> list[str]:
    """Flags of photos with bright squares in the layout of the recipe's data set; and a trained backbone if needed."""
    parts = ["--data.train", "[VOC2007/train]", "--data.val", "[VOC2007/val]", "--data.test", "[VOC2007/test]"]
    flags = {
        "detection_bccd": ["--data.root", str(tree("voc_tree")), *parts],
        "faster_rcnn_voc": ["--data.root", str(tree("voc_tree")), *parts[:2], "--data.max_size", "128"],
        "retinanet_vanillanet13_coco": ["--data.root", str(tree("coco_tree")), "--data.max_size", "128"],
        "mask_rcnn_vanillanet13_coco": ["--data.root", str(tree("coco_tree")), "--data.max_size", "128"],
        "segmentation_camvid": ["--data.root", str(tree("street_tree"))],
        # As ADE20K's layout has its masks in other folders.
        "fcn_ade20k": ["--data", "datamodules.SegmentationFolder", "--data.root", str(tree("street_tree"))],
    }[name]
    if name == "faster_rcnn_voc":
        net_args = {"depth": 50, "variant": "D", "num_classes": 10}
        net = ResNet(**net_args)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # as in one that has been trained
        write_atomically(classifier_checkpoint(net, net_args), folder / "backbone.ckpt")
        flags += ["--model.net.backbone", str(folder / "backbone.ckpt")]
    if name.endswith("vanillanet13_coco"):
        flags += ["--model.net.backbone.width", "16"]
    if name == "fcn_ade20k":
        flags += ["--data.class_names", "[dark, red, green]", "--data.val", "null"]
    return [*flags, "--data.image_size", "64" if "class_names" in str(flags) or "camvid" in name else "96"]


def _is_shut(module, name: str) -> bool:
    """Whether a parameter lies in a residual block that this step skips."""
    if not hasattr(module.net, "residual_blocks"):
        return False
    blocks = module.net.residual_blocks().items()
    return any(block.gate is False and name.startswith(f"net.{key}.") for key, block in blocks)
