"""Detectors and segmenters from the command line: fit, explain, test, predict, a kill, two ranks, what is refused."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from drill import QUIET, SQUARES, ProcessGroup, differences, finished_run, run_directory, wait
from PIL import Image

from datamodules import COCODetection
from experiments.__main__ import main
from experiments.commands.dashboard import panels
from lit_models.instance_masks import run_lengths
from lit_models.tasks.average_precision import COCOAveragePrecision

SEGMENTER = """
model:
  class_path: lit_models.Segmenter
  init_args:
    net:
      class_path: lit_models.FCN
      init_args:
        backbone: {class_path: lit_models.CIFARResNet, init_args: {depth: 8, width: 8}}
        output_stride: 2
data:
  class_path: datamodules.SegmentationFolder
  init_args: {class_names: [dark, red, green], image_size: 32, base_size: 64, batch_size: 4}
best_checkpoint: {monitor: val/miou}
"""
PICTURES = ["--trainer.callbacks+=ValidationPictures", "--trainer.callbacks.min_score", "0.05"]


@pytest.fixture(scope="module")
def flags(voc_tree, street_tree, tmp_path_factory):
    """Those of a fit of one epoch, by the name of its recipe."""
    streets = tmp_path_factory.mktemp("recipes") / "streets.yaml"
    streets.write_text(SEGMENTER)
    short = [*QUIET, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]
    return {
        config.stem: ["--config", str(config), "--data.root", str(root), *short]
        for config, root in ((SQUARES, voc_tree), (streets, street_tree))
    }


@pytest.fixture(scope="module")
def runs(flags, tmp_path_factory):
    """The run of each recipe."""
    root = tmp_path_factory.mktemp("transfer")
    for words in flags.values():
        assert main(["fit", *words, *PICTURES, "--trainer.default_root_dir", str(root)]) == 0
    return {path.parent.name: path for path in root.glob("*/*")}


@pytest.mark.parametrize(("name", "metric"), [("squares", "map"), ("streets", "miou")])
def test_a_fit_is_summed_up_drawn_explained_and_tested(name, metric, runs, flags, capsys):
    summary = json.loads((runs[name] / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert 0 <= summary["metrics"][f"val/{metric}"] <= 1
    assert summary["macs"] > 0
    with Image.open(runs[name] / "pictures" / "epoch-000.png") as picture:
        assert picture.size == (134, 134)  # two by two canvases of 64×64, and the lines between
    assert main(["test", "--ckpt_path", str(runs[name]), "--wandb.mode", "disabled"]) == 0
    (tested,) = (runs[name] / "test").glob("*/summary.json")
    assert f"test/{metric}" in json.loads(tested.read_text())["metrics"]
    capsys.readouterr()
    assert main(["explain", *flags[name]]) == 0
    printed = capsys.readouterr().out
    assert "12 training images" in printed
    assert "batches of 4" in printed


def test_a_report_tells_of_a_detector_and_of_a_segmenter(runs, fathom, tmp_path):
    out = tmp_path / "report.html"
    assert fathom("report", runs["squares"], runs["streets"], "--out", out) == (0, "")
    text = out.read_text(encoding="utf-8")
    for said in (
        *("FasterRCNN (backbone CIFARResNet (depth 8", "FCN (backbone CIFARResNet (depth 8", " for 1 epoch with "),
        *("best validation mAP", "best validation mIoU", "<figcaption>mAP", "<figcaption>mIoU"),
        *("squares: AP by class", "streets: IoU by class", "Loss of the proposals&#39; boxes"),
        *("this run trained a Detector.", "this run trained a Segmenter."),
    ):
        assert said in text, said
    assert re.search(r'class="line dashed"[^>]*>\s*<circle class="dot"', text), "one epoch is a point"
    assert text.count('<img class="drawn" src="data:image/') == 2


def test_the_panels_of_the_dashboard_name_what_they_log(runs):
    pytest.importorskip("wandb_workspaces")
    logged = {"val/pictures"}
    for run in runs.values():
        logged |= {*(run / "metrics.csv").read_text().partition("\n")[0].split(",")}
    named = set()
    for panel in panels("Transfer"):
        named |= {*getattr(panel, "y", []), *getattr(panel, "media_keys", []), getattr(panel, "metric_regex", None)}
    named.discard(None)
    assert len(named) == 8
    unlogged = {name for name in named if not any(re.fullmatch(name, key) for key in logged)}
    assert unlogged == {"val/mask_ap/.*"}  # of networks that find masks


def predicted(run, *flags):
    assert main(["predict", "--ckpt_path", str(run), "--wandb.mode", "disabled", *flags]) == 0
    return max((run / "predict").iterdir(), key=lambda path: path.stat().st_mtime)


def test_detections_are_written_with_the_ids_and_in_the_pixels_of_the_files(runs, coco_tree):
    found = json.loads((predicted(runs["squares"], "--model.net.min_score", "0.01") / "detections.json").read_text())
    assert {one["image_id"] for one in found} <= {"000017", "000018", "000019"}
    assert {one["category_id"] for one in found} <= {1, 2}
    coco = ["--data", "datamodules.COCODetection", "--data.root", str(coco_tree), "--data.val", "val2017"]
    coco += ["--data.image_size", "24", "--data.max_size", "32"]
    coco += ["--data.train", "train2017", "--data.test", "test2017", "--model.net.min_score", "0.01"]
    found = json.loads((predicted(runs["squares"], *coco) / "detections.json").read_text())
    assert found
    assert {one["image_id"] for one in found} <= {117, 118, 119}
    assert {one["category_id"] for one in found} <= {3, 7}
    right, bottom = (max(one["bbox"][i] + one["bbox"][i + 2] for one in found) for i in (0, 1))
    assert 32 < right <= 64.001  # pixels of the files, twice those of the network
    assert 24 < bottom <= 48.001


MASKS = """
model:
  class_path: lit_models.Detector
  init_args:
    net:
      class_path: lit_models.MaskRCNN
      init_args:
        pyramid_channels: 16
        head_channels: 32
        mask_channels: 16
        training_proposals: [50, 50]
        test_proposals: [50, 50]
        regions_per_image: 32
        min_score: 0.01
    score: coco_masks
    lr: 0.01
"""


def test_the_score_on_a_file_of_coco_is_that_of_pycocotools_which_reads_it(coco_tree, tmp_path):
    """Of boxes and masks that are a little off, with objects whose areas are not those of their boxes."""
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools, of the extra detection, is missing")
    from pycocotools.cocoeval import COCOeval

    data = COCODetection(coco_tree, test="train2017", masks=True, image_size=48, max_size=64, batch_size=5)
    metric, found = COCOAveragePrecision(2, masks=True), []
    for _, targets in data.batches("test"):
        columns = (targets[name].split(targets["counts"]) for name in ("boxes", "labels"))
        detections = []
        for number, boxes, labels in zip(targets["ids"], *columns, strict=True):
            boxes, scores = boxes + number % 5 / 2, torch.linspace(1, 0.25, len(boxes)) / (number % 7 + 1)
            masks = torch.ones(len(boxes), 1, 28, 28)
            detections.append({"boxes": boxes, "scores": scores, "labels": labels, "masks": masks})
            sides = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)
            for box, score, label, text in zip(
                sides.tolist(), scores.tolist(), labels.tolist(), run_lengths(masks, boxes, (48, 64)), strict=True
            ):
                one = {"image_id": number, "category_id": data.category_ids[label], "score": score, "bbox": box}
                found.append(one | {"segmentation": {"size": [48, 64], "counts": text}})
        metric.update(detections, targets)
    scores = metric.compute()
    assert scores["map_large"] != scores["map_small"]
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    for overlap, prefix in (("bbox", ""), ("segm", "mask_")):
        results = tmp_path / f"{overlap}.json"
        left_out = "segmentation" if overlap == "bbox" else "bbox"
        results.write_text(json.dumps([{k: v for k, v in one.items() if k != left_out} for one in found]))
        truth = coco.COCO(str(coco_tree / "annotations" / "instances_train2017.json"))
        for one in truth.dataset["annotations"]:  # pycocotools wants one everywhere
            one.setdefault("area", one["bbox"][2] * one["bbox"][3])
        judged = COCOeval(truth, truth.loadRes(str(results)), overlap)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        expected = np.where(judged.stats[:6] < 0, np.nan, judged.stats[:6])
        np.testing.assert_array_equal([scores[f"{prefix}{name}"].item() for name in names], expected)


def test_a_mask_rcnn_learns_draws_and_writes_masks(coco_tree, tmp_path):
    decode = pytest.importorskip("pycocotools.mask", reason="pycocotools, of the extra detection, is missing").decode
    (tmp_path / "masks.yaml").write_text(MASKS)
    words = ["fit", "--config", str(SQUARES), "--config", str(tmp_path / "masks.yaml"), *QUIET, *PICTURES]
    words += ["--data", "datamodules.COCODetection", "--data.root", str(coco_tree), "--data.masks", "true"]
    words += ["--data.train", "train2017", "--data.val", "val2017", "--data.test", "test2017"]
    words += ["--trainer.max_epochs", "12", "--trainer.check_val_every_n_epoch", "12", "--trainer.accelerator", "cpu"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    (run,) = tmp_path.glob("*/*/summary.json")
    metrics = json.loads(run.read_text())["metrics"]
    assert metrics["val/mask_map50"] > 0.5
    by_class = [metrics[f"val/mask_ap/{name}"] for name in ("red", "green")]
    assert metrics["val/mask_map"] == pytest.approx(np.mean(by_class), abs=1e-6)
    assert (run.parent / "pictures" / "epoch-011.png").is_file()
    found = json.loads((predicted(run.parent) / "detections.json").read_text())
    best = {one["image_id"]: one for one in sorted(found, key=lambda one: one["score"])}
    assert {*best} == {117, 118, 119}
    for one in best.values():
        mask = decode(one["segmentation"])
        assert mask.shape == (48, 64)
        left, top, width, height = one["bbox"]
        assert mask.sum() > 0.5 * width * height
        rows, columns = mask.nonzero()
        assert left - 1 <= columns.min() <= columns.max() <= left + width + 1
        assert top - 1 <= rows.min() <= rows.max() <= top + height + 1


def test_masks_have_the_names_and_sizes_of_their_photos(runs):
    folder = predicted(runs["streets"]) / "masks"
    assert sorted(path.name for path in folder.iterdir()) == ["000017.png", "000018.png", "000019.png"]
    for path in folder.iterdir():
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("P", (64, 48))
            assert set(np.unique(mask)) <= {0, 1, 2}


@pytest.mark.parametrize("command", ["lesion", "reorder", "paths", "responses"])
def test_a_detector_is_not_taken_apart(command, runs, fathom):
    code, said = fathom(command, runs["squares"])
    assert code == 1
    assert "classif" in said


@pytest.mark.slow
def test_a_detector_killed_and_resumed_ends_as_one_that_never_was(flags, tmp_path):
    words = [*flags["squares"], "--trainer.max_epochs", "3", "--last_checkpoint.every_n_steps", "1"]
    words += ["--trainer.log_every_n_steps", "1", "--trainer.default_root_dir"]
    with ProcessGroup(["fit", *words, str(tmp_path / "whole")]) as process:
        wait(process, 200)
    with ProcessGroup(["fit", *words, str(tmp_path / "broken")]) as process:
        end = time.monotonic() + 200
        while not _has_begun(tmp_path / "broken") and time.monotonic() < end:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -9
    with ProcessGroup(["resume", str(run_directory(tmp_path / "broken"))]) as process:
        wait(process, 200)
    found = list(differences(finished_run(tmp_path / "whole"), finished_run(tmp_path / "broken")))
    assert not found, found[:10]


def _has_begun(folder):
    return run_directory(folder) is not None and any(folder.glob("*/*/checkpoints/last.ckpt"))


@pytest.mark.parametrize("name", ["squares", pytest.param("streets", marks=pytest.mark.slow)])
def test_two_ranks_of_which_one_has_no_object_and_nothing_to_validate_end(name, flags, tmp_path, repository, voc_tree):
    """Of two training images the second has no object; of one validation image the second rank has none."""
    words = [*flags[name], "--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "1"]
    root = voc_tree / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    if name == "squares":
        (root / "two.txt").write_text("000010\n000011\n")
        (root / "one.txt").write_text("000012\n")
        words += ["--data.train", "[VOC2007/two]", "--data.val", "[VOC2007/one]"]
    else:
        street = words[words.index("--data.root") + 1]
        for part, lines in (("two", "000010\n000011\n"), ("one", "000012\n")):
            with open(f"{street}/{part}.txt", "w") as file:
                file.write(lines)
        words += ["--data.train", "two.txt", "--data.val", "one.txt"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", "fit", *words, "--trainer.default_root_dir", str(tmp_path)],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    assert process.returncode == 0, said
    (summary,) = tmp_path.glob("*/*/summary.json")
    metrics = json.loads(summary.read_text())["metrics"]
    assert metrics["train/loss"] > 0
    assert any(metric in metrics for metric in ("val/map", "val/miou"))
