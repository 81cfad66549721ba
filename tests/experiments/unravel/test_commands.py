"""``fathom lesion`` and ``fathom reorder`` as a user meets them."""

import csv
import json

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules import Digits
from experiments.__main__ import main
from experiments.bench import bench
from experiments.unravel import commands
from experiments.unravel import measure as measuring
from experiments.unravel.commands import lesion, reorder
from experiments.unravel.records import by_network
from experiments.unravel.source import open_subject
from experiments.wandb_logger import WandbOptions
from lit_models import CheckpointError, CIFARResNet
from lit_models.checkpoints import classifier_checkpoint, write_atomically

OFF = WandbOptions(mode="disabled")


def digits(**options):
    return Digits(image_size=8, eval_batch_size=40, **options)


@pytest.fixture
def checkpoint(tmp_path):
    arguments = {"depth": 20, "width": 4, "num_classes": 10, "in_channels": 1}
    torch.manual_seed(0)
    path = tmp_path / "net.ckpt"
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), path)
    return path


@pytest.fixture
def no_figures(monkeypatch):
    """To spare the time of drawing."""
    monkeypatch.setattr(commands, "lesion_figure", lambda tables, path: None)
    monkeypatch.setattr(commands, "reorder_figure", lambda tables, path: None)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("network", "units"),
    [
        ("timm:resnet18", 8),
        ("timm:convnext_atto", 12),
        ("timm:vit_tiny_patch16_224", 24),
        ("torchvision:resnet50", 16),
    ],
)
def test_networks_of_others_have_the_units_they_should(network, units, tmp_path, capsys):
    data = ["--data", "datamodules.Digits", "--data.image_size", "32", "--images", "6", "--out", str(tmp_path)]
    options = [network, *data, "--wandb.mode", "disabled"]
    assert main(["lesion", *options, "--sizes", f"[{units}]", "--draws", "1", "--runs", "[]"]) == 0
    records = table(tmp_path / "lesion.csv")
    assert sum(record["kind"] == "single" for record in records) == units
    assert all(record["images"] == "6" and 0 <= float(record["error"]) <= 1 for record in records)
    assert main(["reorder", *options, "--swaps", "[2]", "--draws", "2"]) == 0
    assert len(table(tmp_path / "reorder.csv")) == 3
    for name in ("lesion.png", "reorder.png"):
        assert 0 < (tmp_path / name).stat().st_size < 100_000
    assert f"of {units} links deleted" in capsys.readouterr().out


def test_a_run_needs_nothing_but_its_directory(tmp_path, capsys):
    net = ["--model.net", "lit_models.CIFARResNet", "--model.net.depth", "8", "--model.net.width", "4"]
    trainer = ["--trainer.max_steps", "2", "--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    data = ["--data", "datamodules.Digits", "--data.image_size", "8", "--trainer.limit_val_batches", "1"]
    assert (
        main(["fit", "--model", "lit_models.ImageClassifier", *net, *data, *trainer, "--wandb.mode", "disabled"]) == 0
    )
    (run,) = (tmp_path / "unnamed").iterdir()
    assert main(["lesion", str(run), "--images", "40", "--sizes", "[1]"]) == 0
    assert main(["reorder", str(run / "checkpoints" / "last.ckpt"), "--images", "40"]) == 1
    assert "no two links of this network can be exchanged" in capsys.readouterr().err
    assert {record["images"] for record in table(run / "unravel" / "lesion.csv")} == {"40"}
    (recorded,) = run.glob("unravel/wandb/lesion-*/*/wandb/offline-run-*/files/media/table/*.table.json")
    logged = json.loads(recorded.read_text())
    assert logged["columns"] == list(table(run / "unravel" / "lesion.csv")[0])
    assert len(logged["data"]) == len(table(run / "unravel" / "lesion.csv"))


@pytest.mark.parametrize("command", [lesion, reorder])
@pytest.mark.usefixtures("no_figures")
def test_a_command_that_is_ended_goes_on_where_it_was(command, checkpoint, tmp_path, monkeypatch):
    name = f"{command.__name__}.csv"
    options = {"data": digits(), "images": 130, "draws": 2, "wandb": OFF}
    command(str(checkpoint), **options, out=tmp_path / "whole")

    count, batches = measuring.count_errors, []

    def end_in_the_third_batch(*args):
        batches.append(args)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return count(*args)

    monkeypatch.setattr(measuring, "count_errors", end_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        command(str(checkpoint), **options, out=tmp_path / "ended")
    assert {record["images"] for record in table(tmp_path / "ended" / name)} == {"80"}
    command(str(checkpoint), **options, out=tmp_path / "ended")
    assert len(batches) == 3 + 2  # of 40 and of 10 images
    whole = (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "ended" / name).read_bytes() == whole

    command(str(checkpoint), **options, out=tmp_path / "ended")
    assert len(batches) == 5, "nothing was left to count"


@pytest.mark.usefixtures("no_figures")
def test_more_draws_and_more_images_add_to_what_is_there(checkpoint, tmp_path, monkeypatch):
    counted = []
    count = measuring.count_errors

    def counting(chain, variants, images, targets, advance):
        counted.append(len(variants) * len(images))
        return count(chain, variants, images, targets, advance)

    monkeypatch.setattr(measuring, "count_errors", counting)
    options = {"data": digits(), "sizes": (2,), "runs": (), "wandb": OFF}
    lesion(str(checkpoint), images=60, draws=3, **options, out=tmp_path / "grown")
    assert sum(counted) == 60 * (1 + 9 + 3)
    lesion(str(checkpoint), images=50, draws=5, **options, out=tmp_path / "grown")
    assert sum(counted) == 60 * 13 + 50 * 2
    lesion(str(checkpoint), images=100, draws=5, **options, out=tmp_path / "grown")
    assert sum(counted) == 100 * 15
    lesion(str(checkpoint), images=100, draws=5, **options, out=tmp_path / "at_once")
    assert table(tmp_path / "grown" / "lesion.csv") == table(tmp_path / "at_once" / "lesion.csv")
    # Another seed adds its draws, and keeps those of the first.
    lesion(str(checkpoint), images=100, draws=5, **options, seed=1, out=tmp_path / "grown")
    assert [record["seed"] for record in table(tmp_path / "grown" / "lesion.csv")].count("0") == 5


@pytest.mark.usefixtures("no_figures")
def test_results_of_other_weights_are_not_taken_over(checkpoint, tmp_path):
    options = {"data": digits(), "images": 20, "sizes": (1,), "draws": 1, "wandb": OFF, "out": tmp_path / "out"}
    lesion(str(checkpoint), **options)
    arguments = {"depth": 20, "width": 4, "num_classes": 10, "in_channels": 1}
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), checkpoint)
    before = (tmp_path / "out" / "lesion.csv").read_bytes()
    with pytest.raises(MisconfigurationException, match=r"lesion\.csv is of net with other weights"):
        lesion(str(checkpoint), **options)
    assert (tmp_path / "out" / "lesion.csv").read_bytes() == before


def test_a_control_is_drawn_beside(checkpoint, tmp_path):
    options = {"data": digits(), "images": 20, "draws": 1, "wandb": OFF}
    lesion("timm:resnet10t", **options | {"data": Digits(image_size=32)}, out=tmp_path / "control")
    lesion(str(checkpoint), **options, out=tmp_path / "alone")
    lesion(str(checkpoint), **options, beside=(tmp_path / "control",), out=tmp_path / "both")
    assert table(tmp_path / "alone" / "lesion.csv") == table(tmp_path / "both" / "lesion.csv")
    assert (tmp_path / "alone" / "lesion.png").read_bytes() != (tmp_path / "both" / "lesion.png").read_bytes()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lesion(str(checkpoint), **options, beside=(tmp_path / "nowhere",))


def test_networks_of_one_name_are_told_apart():
    tables = [[{"network": name, "fingerprint": print}] for name, print in (("a", "1"), ("a", "2"), ("b", "3"))]
    assert list(by_network(tables)) == ["a 1", "a 2", "b"]
    assert list(by_network(tables).values()) == tables


def test_images_come_in_a_fixed_order_that_mixes_the_classes(checkpoint):
    subject = open_subject(str(checkpoint), digits())
    targets = torch.cat([targets for _, targets in subject.batches(100)])
    assert targets.bincount(minlength=10).tolist() == pytest.approx([10] * 10, abs=2)
    later = torch.cat([targets for _, targets in subject.batches(30, skip=70)])
    assert torch.equal(later, targets[70:])


def test_random_weights_are_named_by_the_seed_and_leave_the_generator_alone():
    data = Digits(image_size=32)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = open_subject("timm:resnet10t", data).fingerprint()
    assert torch.equal(torch.rand(1), expected)
    assert open_subject("timm:resnet10t", data).fingerprint() == first
    assert open_subject("timm:resnet10t", data, seed=1).fingerprint() != first


def test_weights_come_from_a_file(tmp_path):
    data = Digits(image_size=32)
    net = open_subject("timm:resnet10t", data, seed=3)
    torch.save(net.net.state_dict(), tmp_path / "weights.pth")
    assert open_subject("timm:resnet10t", data, tmp_path / "weights.pth").fingerprint() == net.fingerprint()
    torch.save({"fc.weight": torch.zeros(3, 512)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth does not fit timm:resnet10t of 10 classes") as error:
        open_subject("timm:resnet10t", data, tmp_path / "other.pth")
    assert len(str(error.value)) < 400
    (tmp_path / "broken.pth").write_bytes(b"\x80\x02nonsense")
    with pytest.raises(CheckpointError, match=r"broken\.pth"):
        open_subject("timm:resnet10t", data, tmp_path / "broken.pth")


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("timm:resnt18", {"data": True}, "timm has no network 'resnt18'; near it: resnet18"),
        ("torchvision:resnet51", {"data": True}, "torchvision has no network 'resnet51'; near it: resnet50"),
        ("timm:resnet10t", {}, "--data"),
        ("nowhere", {}, "there is no nowhere: give a run directory"),
        (".", {}, "is no run directory"),
        ("timm:ghostnet_100", {"data": True}, "can't be taken apart"),
        ("{checkpoint}", {}, "does not lie in the directory of its run"),
        ("{checkpoint}", {"data": True, "weights": "x.pth"}, "--weights is for timm:NAME"),
        ("timm:resnet10t", {"data": True, "weights": "x.pth"}, r"there are no weights x\.pth"),
    ],
)
def test_what_can_not_be_opened_is_one_sentence(source, options, sentence, checkpoint, capsys):
    args = ["lesion", source.format(checkpoint=checkpoint)]
    if options.get("data"):
        args += ["--data", "datamodules.Digits", "--data.image_size", "32"]
    if "weights" in options:
        args += ["--weights", options["weights"]]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert sentence.replace("\\", "") in error
    assert "Traceback" not in error


def test_data_of_other_classes_are_refused(tmp_path):
    arguments = {"depth": 8, "width": 4, "num_classes": 7, "in_channels": 1}
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), tmp_path / "seven.ckpt")
    with pytest.raises(MisconfigurationException, match="seven has 7 classes, the data 10"):
        open_subject(str(tmp_path / "seven.ckpt"), digits())


def test_links_that_are_not_the_network_are_noticed(checkpoint, monkeypatch):
    monkeypatch.setattr(CIFARResNet, "forward", lambda self, x: self.forward_head(self.forward_features(x)) + 1)
    with pytest.raises(MisconfigurationException, match="its links give other logits"):
        open_subject(str(checkpoint), digits())


def test_the_benchmark_sees_the_same_logits(capsys):
    bench["lesion"](depth=8, images=6, batch_size=4, gradient_images=2)
    printed = " ".join(capsys.readouterr().out.split())
    assert "all deletions of 8 images give the same logits" in printed
    assert "gradients by length" in printed
