"""``fathom lesion`` and ``fathom reorder`` as a user meets them."""

import csv
import json
from itertools import combinations

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

from datamodules import Digits, SmallImages
from experiments.__main__ import main
from experiments.commands.bench import bench
from experiments.commands.lesion import lesion
from experiments.commands.paths import paths
from experiments.commands.reorder import reorder
from experiments.runs.wandb_logger import WandbOptions
from experiments.unravel import measure as measuring
from experiments.unravel.figures import _by_statistics, lesion_figure
from experiments.unravel.lesions import lesion_errors
from experiments.unravel.records import by_network, write_records
from experiments.unravel.reordering import reordering_errors
from experiments.unravel.source import open_subject
from lit_models import CheckpointError, CIFARResNet
from lit_models.checkpoints import classifier_checkpoint, write_atomically
from lit_models.surgery.links import links

OFF = WandbOptions(mode="disabled")


def digits(**options):
    return Digits(image_size=8, eval_batch_size=40, **options)


def saved(path, **options):
    """A checkpoint of a network with random weights and statistics, so that every block matters."""
    arguments = {"depth": 20, "width": 4, "num_classes": 10, "in_channels": 1, **options}
    torch.manual_seed(0)
    net = CIFARResNet(**arguments)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.1, 1)
    write_atomically(classifier_checkpoint(net, arguments), path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return saved(tmp_path / "net.ckpt")


@pytest.fixture
def no_figures(monkeypatch):
    """To spare the time of drawing."""
    monkeypatch.setattr("experiments.commands.lesion.lesion_figure", lambda *_: None)
    monkeypatch.setattr("experiments.commands.reorder.reorder_figure", lambda *_: None)


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
        assert 0 < (tmp_path / name).stat().st_size < 300_000
    assert f"with one block or layer of {units} deleted" in capsys.readouterr().out


@pytest.mark.parametrize("network", ["timm:resnet18", "timm:resnet26d", "torchvision:resnet18"])
def test_no_branch_of_a_network_without_weights_is_zero(network):
    """timm begins with γ = 0 in the last batch normalisation of each, where deletions would change nothing."""
    subject = open_subject(network, Digits(image_size=32))
    x, _ = next(subject.batches(2))
    branches = 0
    with torch.inference_mode():
        for link in subject.links:
            if link.branch is not None:
                branches += 1
                assert link.branch(x).std() > 0
            x = link.forward(x)
    assert branches == 8


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
    assert "no two blocks of this network can be exchanged" in capsys.readouterr().err
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
def test_errors_of_lesions_are_those_without_the_links_they_name(checkpoint, tmp_path):
    lesion(str(checkpoint), digits(), images=100, draws=3, sizes=(2, 5), wandb=OFF, out=tmp_path)
    records = table(tmp_path / "lesion.csv")
    subject = open_subject(str(checkpoint), digits())
    names = [link.name for link in links(subject.net)]
    deleted = [frozenset(names.index(name) for name in record["deleted"].split()) for record in records]
    errors = lesion_errors(subject.net, deleted, subject.batches(100))
    assert [float(record["error"]) for record in records] == pytest.approx(errors, abs=1e-6)
    assert [int(record["errors"]) for record in records] == (100 * errors).round().tolist()
    assert [int(record["size"]) for record in records] == list(map(len, deleted))
    assert [record["transition"] for record in records] == [
        str(int(not {"layer2.0", "layer3.0"}.isdisjoint(record["deleted"].split()))) for record in records
    ]
    # And by the network itself, which does not know of links: with the gates of these blocks shut.
    blocks = subject.net.residual_blocks()
    for record, expected in zip(records, errors, strict=True):
        for name in record["deleted"].split():
            blocks[name].gate = False
        wrong = [(subject.net(images).argmax(1) != targets).float() for images, targets in subject.batches(100)]
        assert torch.cat(wrong).mean().item() == pytest.approx(expected)
        for block in blocks.values():
            block.gate = None
    assert len(set(errors.round(6))) > 5, "errors that are all the same would prove nothing"
    assert abs(errors - 0.5).min() > 0.01, "hits would be as many as errors"


@pytest.mark.usefixtures("no_figures")
def test_errors_of_reorderings_are_those_in_the_orders_they_name(checkpoint, tmp_path):
    reorder(str(checkpoint), digits(), images=100, swaps=(1, 4, 9), draws=3, wandb=OFF, out=tmp_path)
    records = table(tmp_path / "reorder.csv")
    subject = open_subject(str(checkpoint), digits())
    orders = [tuple(map(int, record["order"].split())) for record in records]
    errors = reordering_errors(subject.net, orders, subject.batches(100))
    assert [float(record["error"]) for record in records] == pytest.approx(errors, abs=1e-6)
    assert len(set(errors.round(6))) > 3
    for record, order in zip(records, orders, strict=True):
        pairs = list(combinations(order[1:-1], 2))  # stem and head can't be deleted
        tau = np.mean([1 if first < second else -1 for first, second in pairs])
        assert float(record["tau"]) == pytest.approx(tau, abs=1e-4)
    assert records[0]["order"] == " ".join(map(str, range(11)))
    assert records[0]["tau"] == "1.0000"
    assert len({record["tau"] for record in records}) > 3


@pytest.mark.usefixtures("no_figures")
def test_lesions_are_measured_again_with_statistics_of_their_own(checkpoint, tmp_path, capsys):
    options = {"images": 60, "draws": 1, "sizes": (3,), "runs": (), "wandb": OFF, "out": tmp_path}
    lesion(str(checkpoint), digits(), **options)
    alone = table(tmp_path / "lesion.csv")
    lesion(str(checkpoint), digits(), reestimate_batches=2, **options)
    assert "60 images, batch normalisation estimated anew: " in capsys.readouterr().out
    both = table(tmp_path / "lesion.csv")
    assert both[: len(alone)] == alone
    anew = both[len(alone) :]
    assert {record["reestimated_on"] for record in anew} == {"80"}
    assert [record["deleted"] for record in anew] == [record["deleted"] for record in alone]
    assert [record["errors"] for record in anew] != [record["errors"] for record in alone]
    subject = open_subject(str(checkpoint), digits())
    names = [link.name for link in links(subject.net)]
    lesions = [frozenset(names.index(name) for name in record["deleted"].split()) for record in anew]
    samples = [pixels for pixels, _ in subject.batches(80, test=False)]
    errors = lesion_errors(subject.net, lesions, subject.batches(60), samples)
    assert [float(record["error"]) for record in anew] == pytest.approx(errors, abs=1e-6)
    # More images go on from there, with the same statistics; a table from before there were any is read as it is.
    lesion(str(checkpoint), digits(), reestimate_batches=2, **options | {"images": 90})
    grown = table(tmp_path / "lesion.csv")
    lesion(str(checkpoint), digits(), reestimate_batches=2, **options | {"images": 90, "out": tmp_path / "at_once"})
    assert grown == table(tmp_path / "at_once" / "lesion.csv")
    old = [
        {name: value for name, value in record.items() if name != "reestimated_on"} for record in grown[: len(alone)]
    ]
    write_records(tmp_path / "lesion.csv", old)
    lesion(str(checkpoint), digits(), **options | {"images": 90})
    assert table(tmp_path / "lesion.csv") == grown[: len(alone)]


def test_both_curves_are_drawn(checkpoint, tmp_path):
    options = {"data": digits(), "images": 20, "draws": 2, "sizes": (1, 2), "runs": (2,), "wandb": OFF, "out": tmp_path}
    lesion(str(checkpoint), **options)
    before = (tmp_path / "lesion.png").read_bytes()
    lesion(str(checkpoint), **options, reestimate_batches=1)
    assert before != (tmp_path / "lesion.png").read_bytes()
    records = table(tmp_path / "lesion.csv")
    names = {name: len(of) for name, of in _by_statistics({"net": records}).items()}
    assert names == {"net": len(records) // 2, "net, BN estimated anew on 40 images": len(records) // 2}


def test_a_network_without_batch_normalisation_is_one_sentence(tmp_path, fathom):
    data = ["--data", "datamodules.Digits", "--data.image_size", "32", "--images", "4", "--wandb.mode", "disabled"]
    options = [*data, "--out", tmp_path, "--reestimate_batches", "1"]
    code, sentence = fathom("lesion", "timm:vit_tiny_patch16_224", *options)
    assert (code, sentence) == (
        1,
        "timm:vit_tiny_patch16_224 has no batch normalisation: leave --reestimate_batches out",
    )


@pytest.mark.usefixtures("no_figures")
def test_more_draws_and_more_images_add_to_what_is_there(checkpoint, tmp_path, monkeypatch):
    counted = []
    count = measuring.count_errors

    def counting(chain, variants, images, *rest):
        counted.append(len(variants) * len(images))
        return count(chain, variants, images, *rest)

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


@pytest.fixture
def folders(tmp_path):
    """Two folders of equal class names with different pixels, of one mean and deviation."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    for folder, images in (("a", pixels), ("b", pixels[:, ::-1])):
        for part in ("train", "test"):
            for index, image in enumerate(images):
                directory = tmp_path / folder / part / f"class{index % 2}"
                directory.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(directory / f"{index}.png")
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("command", [lesion, paths])
@pytest.mark.usefixtures("no_figures")
def test_results_of_other_images_are_not_taken_over(command, folders, tmp_path):
    path = saved(tmp_path / "two.ckpt", num_classes=2, in_channels=3)
    first, second = (SmallImages(str(folder), val_fraction=0) for folder in folders)
    assert (first.class_names, first.mean) == (second.class_names, pytest.approx(second.mean))
    command(str(path), first, wandb=OFF, out=tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.csv")}
    with pytest.raises(MisconfigurationException, match="is of two with other weights or images: give another --out"):
        command(str(path), second, wandb=OFF, out=tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.csv")} == before


def test_a_folder_without_images_is_one_sentence(checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    data = ["--data", "datamodules.SmallImages", "--data.root", str(tmp_path / "empty")]
    assert main(["lesion", str(checkpoint), *data]) == 1
    error = capsys.readouterr().err
    assert "empty has no class folder in it" in error
    assert "Traceback" not in error


def test_no_draws_and_no_runs_leave_one_panel(checkpoint, tmp_path):
    options = ["--images", "20", "--wandb.mode", "disabled", "--out", str(tmp_path / "out")]
    data = ["--data", "datamodules.Digits", "--data.image_size", "8"]
    assert main(["lesion", str(checkpoint), *data, *options, "--draws", "0", "--runs", "[]"]) == 0
    records = table(tmp_path / "out" / "lesion.csv")
    assert {record["kind"] for record in records} == {"none", "single"}
    lesion_figure({"net": records}, tmp_path / "again.png")
    with Image.open(tmp_path / "out" / "lesion.png") as figure:
        assert figure.width == pytest.approx(3.8 * 200, abs=1)


@pytest.mark.usefixtures("no_figures")
def test_a_number_that_is_given_twice_counts_once(checkpoint, tmp_path):
    options = {"data": digits(), "images": 10, "draws": 2, "wandb": OFF}
    lesion(str(checkpoint), sizes=(3, 2, 3), runs=(2, 2), **options, out=tmp_path)
    reorder(str(checkpoint), swaps=(1, 2, 1), **options, out=tmp_path)
    records = table(tmp_path / "lesion.csv")
    assert [record["size"] for record in records if record["kind"] == "random"] == ["3", "3", "2", "2"]
    assert sum(record["kind"] == "run" for record in records) == 8
    assert [record["swaps"] for record in table(tmp_path / "reorder.csv")] == list("01122")


@pytest.mark.usefixtures("no_figures")
def test_a_table_of_another_command_is_refused(checkpoint, tmp_path, capsys):
    data = ["--data", "datamodules.Digits", "--data.image_size", "8", "--images", "10", "--wandb.mode", "disabled"]
    args = [str(checkpoint), *data, "--draws", "1", "--out", str(tmp_path)]
    assert main(["lesion", *args]) == main(["reorder", *args]) == 0
    capsys.readouterr()
    for command, other in (("lesion", "reorder"), ("reorder", "lesion"), ("responses", "lesion")):
        beside = tmp_path / f"{other}.csv"
        assert main([command, str(checkpoint), *data, "--beside", f"[{beside}]", "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err == f"fathom: {beside} is no {command}.csv\n"


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
    with pytest.raises(CheckpointError, match=r"other\.pth does not hold the weights of timm:resnet10t of 10") as error:
        open_subject("timm:resnet10t", data, tmp_path / "other.pth")
    assert len(str(error.value)) < 400
    (tmp_path / "broken.pth").write_bytes(b"\x80\x02nonsense")
    with pytest.raises(CheckpointError, match=r"broken\.pth"):
        open_subject("timm:resnet10t", data, tmp_path / "broken.pth")


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("timm:resnt18", {"data": True}, "timm has no network 'resnt18'; did you mean resnet18"),
        ("torchvision:resnet51", {"data": True}, "torchvision has no network 'resnet51'; did you mean resnet50"),
        ("timm:resnet10t", {}, "--data"),
        ("nowhere", {}, "there is no nowhere: give a run directory"),
        (".", {}, "is no run directory"),
        ("timm:ghostnet_100", {"data": True}, "can't be taken apart"),
        ("{checkpoint}", {}, "does not lie in the directory of its run"),
        ("timm:resnet18.foo", {"data": True}, "timm has no network 'resnet18.foo'; did you mean resnet18"),
        (
            "torchvision:resnet18.foo",
            {"data": True},
            "torchvision has no network 'resnet18.foo'; did you mean resnet18",
        ),
        ("timm:vit_tiny_patch16_224", {"data": True, "size": "8"}, "vit_tiny_patch16_224 can't take images of 8×8"),
        ("{checkpoint}", {"data": True, "weights": "x.pth"}, "--weights is for timm:NAME"),
        ("timm:resnet10t", {"data": True, "weights": "x.pth"}, r"there are no weights x\.pth"),
    ],
)
def test_what_can_not_be_opened_is_one_sentence(source, options, sentence, checkpoint, capsys):
    args = ["lesion", source.format(checkpoint=checkpoint)]
    if options.get("data"):
        args += ["--data", "datamodules.Digits", "--data.image_size", options.get("size", "32")]
    if "weights" in options:
        args += ["--weights", options["weights"]]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert sentence.replace("\\", "") in error
    assert "Traceback" not in error


@pytest.mark.parametrize("content", ["foo: 1", "", "data: 3", "- 1", "data: [", "\0"])
def test_a_configuration_that_says_nothing_of_the_data_asks_for_them(content, checkpoint, capsys):
    (checkpoint.parent / "config.yaml").write_text(content)
    assert main(["lesion", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert "config.yaml does not say what data the network is of: give --data" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sizes", "3"], "sizes takes a list such as [a,b], not 3"),
        (["--beside", "there"], "beside takes a list such as [a,b], not there"),
        (["--sizes", "[0]"], "sizes takes a whole number above 0, not 0"),
        (["--seed", "-1"], "seed takes a whole number, 0 or above, not -1"),
        (["--image", "8"], "there is no flag --image; did you mean images?"),
        (["--data.batch_size", "8"], "data needs its class: name it too, as in --data datamodules.CLASS"),
    ],
)
def test_a_flag_that_can_not_be_read_is_named(flags, sentence, checkpoint, capsys):
    assert main(["lesion", str(checkpoint), *flags]) == 2
    assert capsys.readouterr().err == f"fathom: {sentence}\n"


def test_data_of_other_classes_are_refused(tmp_path):
    arguments = {"depth": 8, "width": 4, "num_classes": 7, "in_channels": 1}
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), tmp_path / "seven.ckpt")
    with pytest.raises(MisconfigurationException, match="seven has 7 classes, the data 10"):
        open_subject(str(tmp_path / "seven.ckpt"), digits())


def test_links_that_are_not_the_network_are_noticed(checkpoint, monkeypatch):
    monkeypatch.setattr(CIFARResNet, "forward", lambda self, x: self.forward_head(self.forward_features(x)) + 1)
    for command in (lesion, reorder, paths):
        with pytest.raises(MisconfigurationException, match="one after the other, give other logits"):
            command(str(checkpoint), digits())


def test_the_benchmark_sees_the_same_logits(capsys):
    bench["lesion"](depth=8, images=6, batch_size=4, gradient_images=2)
    printed = " ".join(capsys.readouterr().out.split())
    assert "all deletions of 8 images give the same logits" in printed
    assert "gradients by length" in printed


def test_the_benchmark_ends_where_logits_differ(monkeypatch):
    namespace = bench["lesion"].__globals__
    shared = namespace["_shared"]
    monkeypatch.setitem(namespace, "_shared", lambda *args: shared(*args) + 1)
    with pytest.raises(RuntimeError, match="other logits"):
        bench["lesion"](depth=8, images=2, batch_size=2, gradient_images=1)
