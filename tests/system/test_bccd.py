"""A detector on real photos: autocast costs it no average precision, as boxes stay float32."""

import json
import zipfile

import pytest
from torchvision.models.detection.anchor_utils import AnchorGenerator

from experiments.__main__ import main
from lit_models.transfer.float32 import Float32Anchors, Float32Outputs


@pytest.fixture(scope="module")
def detector(real_data, tmp_path_factory):
    """The run of ``detection_bccd``, as the recipe has it."""
    root = tmp_path_factory.mktemp("bccd")
    with zipfile.ZipFile(real_data / "bccd-voc.zip") as file:
        file.extractall(root)
    flags = ["--data.root", str(root), "--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "detection_bccd", *flags, "--trainer.default_root_dir", str(root)]) == 0
    (run,) = root.glob("detection_bccd/*")
    return run


def average_precision(run, precision):
    """COCO's, in percent of the 72 test images."""
    flags = ["--model.score", "coco", "--trainer.precision", precision, "--wandb.mode", "disabled"]
    assert main(["test", "--ckpt_path", str(run), *flags, "--trainer.enable_progress_bar", "false"]) == 0
    summary = max(run.glob("test/*/summary.json"), key=lambda path: path.stat().st_mtime)
    return 100 * json.loads(summary.read_text())["metrics"]["test/map"]


@pytest.mark.slow
def test_autocast_changes_the_average_precision_by_less_than_a_third_of_a_point(detector, monkeypatch):
    expected = average_precision(detector, "32-true")
    assert expected > 45
    assert average_precision(detector, "bf16-mixed") == pytest.approx(expected, abs=0.3)
    # And with torchvision's own parts it would be more, so that this can fail.
    monkeypatch.setattr(Float32Outputs, "forward", lambda self, *inputs: self.head(*inputs))
    monkeypatch.setattr(Float32Anchors, "forward", AnchorGenerator.forward)
    assert average_precision(detector, "bf16-mixed") != pytest.approx(expected, abs=0.3)
