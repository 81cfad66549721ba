"""``fathom gradients`` as one types it."""

import csv

import pytest
import torch

from experiments.__main__ import main
from experiments.unravel.input_gradients import input_gradients, slope
from experiments.unravel.source import initial_network, open_subject
from lit_models import CIFARResNet, load_checkpoint
from lit_models.checkpoints import classifier_checkpoint, write_atomically


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_has_its_initial_and_its_trained_network(tiny_run, tmp_path, capsys):
    options = ["--images", "40", "--wandb.mode", "disabled", "--out", str(tmp_path)]
    assert main(["gradients", str(tiny_run), *options]) == 0
    table = rows(tmp_path / "gradients.csv")
    subject = open_subject(str(tiny_run))
    batches = list(subject.batches(40, test=False))
    initial = initial_network(str(tiny_run), subject)
    for weights, net in (("initial", initial), ("trained", subject.net)):
        found, records = input_gradients(net, batches), [row for row in table if row["weights"] == weights]
        assert [row["link"] for row in records] == [gradient.link for gradient in found]
        assert [float(row["norm"]) for row in records] == pytest.approx([g.norm for g in found], rel=1e-5)
        assert float(records[0]["slope"]) == pytest.approx(slope(found), rel=1e-4)
    assert "initial tiny: towards the input" in capsys.readouterr().out
    assert len(table) == 2 * 5
    assert (tmp_path / "gradients.png").stat().st_size < 400_000
    beside = ["--beside", f"[{tmp_path}]"]
    other = ["--data", "datamodules.Digits", "--data.image_size", "32", "--images", "10", "--wandb.mode", "disabled"]
    assert main(["gradients", "timm:resnet10t", *other, *beside, "--out", str(tmp_path / "other")]) == 0
    assert main(["gradients", "timm:resnet10t", *other, "--beside", str([str(tmp_path / "metrics.csv")])]) == 1


def test_the_initial_network_is_that_of_the_fit(tiny_config, tmp_path):
    """Of a fit whose steps are too short to move a weight."""
    root = ["--trainer.default_root_dir", str(tmp_path), "--model.lr", "1e-30", "--seed_everything", "17"]
    assert main(["fit", "--config", str(tiny_config), *root]) == 0
    (run,) = tmp_path.glob("tiny/*")
    subject = open_subject(str(run))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    initial = initial_network(str(run), subject)
    assert torch.equal(torch.rand(1), expected), "the generator is left alone"
    trained = load_checkpoint(run).net
    for (name, parameter), other in zip(initial.named_parameters(), trained.parameters(), strict=True):
        assert torch.allclose(parameter.cpu(), other, rtol=0, atol=1e-20), name
    assert not torch.equal(initial.conv1.weight, CIFARResNet(8, width=4, in_channels=1).conv1.weight)


def test_the_sample_is_of_images_that_are_trained_on(tiny_run):
    subject = open_subject(str(tiny_run))
    data, _ = subject.data.part(test=False)
    pixels = torch.cat([pixels for pixels, _ in subject.batches(64, test=False)])
    targets = torch.cat([targets for _, targets in subject.batches(64, test=False)])
    trained_on = subject.data.split[0]
    assert len(pixels) == len(trained_on) == 64
    (mean,), (std,) = subject.data.mean, subject.data.std
    known = {row.tobytes() for row in (pixels * std + mean).mul(255).round().byte().flatten(1).numpy()}
    assert known == {row.tobytes() for row in data[trained_on].flatten(1).numpy()}
    assert torch.equal(targets.sort().values, subject.data.labels(test=False)[trained_on].sort().values)
    assert targets[:10].sort().values.tolist() == list(range(10)), "in an order that mixes the classes"
    later = torch.cat([targets for _, targets in subject.batches(30, skip=34, test=False)])
    assert torch.equal(later, targets[34:])


def test_a_network_that_did_not_begin_from_random_weights_is_one_sentence(tiny_run, tmp_path, fathom):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").write_bytes((tiny_run / "checkpoints" / "best.ckpt").read_bytes())
    config = (tiny_run / "config.yaml").read_text()
    assert "\nckpt_path: null" in config
    (run / "config.yaml").write_text(config.replace("\nckpt_path: null", "\nckpt_path: other.ckpt"))
    code, sentence = fathom("gradients", run, "--images", "10", "--wandb.mode", "disabled")
    assert code == 1
    assert "did not begin from random weights" in sentence


def test_a_checkpoint_without_its_run_takes_the_seed_of_the_flag(tmp_path, fathom):
    arguments = {"depth": 8, "width": 4, "num_classes": 10, "in_channels": 1}
    path = tmp_path / "net.ckpt"
    write_atomically(classifier_checkpoint(CIFARResNet(**arguments), arguments), path)
    options = ["--data", "datamodules.Digits", "--data.image_size", "8", "--images", "10", "--wandb.mode", "disabled"]
    tables = []
    for seed in "11", "11", "12":
        assert fathom("gradients", path, *options, "--seed", seed, "--out", tmp_path)[0] == 0
        tables.append([row["norm"] for row in rows(tmp_path / "gradients.csv") if row["weights"] == "initial"])
    assert tables[0] == tables[1] != tables[2]
