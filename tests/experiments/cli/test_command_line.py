"""The command line as a user types it: right, wrong, and with a checkpoint."""

import json

import pytest
import torch
import yaml
from PIL import Image

from experiments.__main__ import main

DIGITS = "vanillanet_digits"
QUICK = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def fathom(repository, tmp_path, monkeypatch, capsys):
    """Runs a command from the repository, with its runs elsewhere: exit code, stderr."""
    monkeypatch.chdir(repository)

    def run(*args):
        code = main([*args])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def small_fit(tmp_path):
    return ["fit", "--config", DIGITS, *QUICK, "--trainer.default_root_dir", str(tmp_path), "--data.train_size", "64"]


def run_directories(tmp_path, experiment="vanillanet_digits"):
    return sorted((tmp_path / experiment).glob("*"), key=lambda path: path.stat().st_mtime)


def config_of(run_directory):
    return yaml.safe_load((run_directory / "config.yaml").read_text())


def test_a_run_leaves_what_it_should(quickstart_run):
    run_directory, printed = quickstart_run
    assert run_directory.parent.name == "vanillanet_digits"
    files = {path.name for path in run_directory.iterdir()}
    assert files >= {"config.yaml", "metrics.csv", "checkpoints", "merged.ckpt", "summary.json", "wandb"}
    assert {path.name for path in (run_directory / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    }
    summary = json.loads((run_directory / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["merge"]["merged"] is True
    assert summary["precision"] in ("bf16-mixed", "16-mixed")
    assert summary["metrics"]["val/top1"] > 0.9
    assert {"parameters", "macs", "seconds", "versions", "commit", "steps"} <= summary.keys()
    last = torch.load(run_directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == summary["steps"]
    for word in ("test top-1", "parameters", "multiply-adds", "forward pass", "largest logit difference"):
        assert word in printed


def test_the_quickstart_reaches_its_accuracy(quickstart_run, fathom, tmp_path):
    run_directory, _ = quickstart_run
    for checkpoint in ("merged.ckpt", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        path = str(run_directory / checkpoint)
        assert fathom("test", "--ckpt_path", path, *QUICK, "--trainer.default_root_dir", str(tmp_path))[0] == 0
    accuracies = [
        json.loads((path / "summary.json").read_text())["metrics"]["test/top1"] for path in run_directories(tmp_path)
    ]
    assert len(accuracies) == 3
    assert min(accuracies) >= 0.97


def test_predict_writes_a_row_for_every_test_image(quickstart_run, fathom, tmp_path):
    path = str(quickstart_run[0] / "merged.ckpt")
    assert fathom("predict", "--ckpt_path", path, *QUICK, "--trainer.default_root_dir", str(tmp_path))[0] == 0
    (run_directory,) = run_directories(tmp_path)
    header, *rows = (run_directory / "predictions.csv").read_text().splitlines()
    assert header == "image,class,probability"
    assert len(rows) == 359
    assert rows[5].split(",")[0] == "5"


def test_settings_win_in_their_order(quickstart_run, fathom, tmp_path):
    """defaults < base < experiment < checkpoint < flags, wherever the flag stands."""
    path = str(quickstart_run[0] / "checkpoints" / "last.ckpt")
    (tmp_path / "other.yaml").write_text("model: {init_args: {lr: 0.5, weight_decay: 0.25, min_lr: 0.001}}\n")
    code, error = fathom(
        "validate",
        *("--model.init_args.label_smoothing", "0.3", "--config", DIGITS, "--config", str(tmp_path / "other.yaml")),
        *("--ckpt_path", path, *QUICK, "--trainer.default_root_dir", str(tmp_path / "runs")),
    )
    assert code == 0, error
    (run_directory,) = run_directories(tmp_path / "runs", "other")
    config = config_of(run_directory)
    model = config["model"]["init_args"]
    assert model["momentum"] == 0.9  # default
    assert config["trainer"]["precision"] == "16-mixed"  # base
    assert config["trainer"]["max_epochs"] == 20  # experiment
    assert (model["lr"], model["weight_decay"], model["min_lr"]) == (2e-3, 0.05, 0.0)  # checkpoint over YAML
    assert model["label_smoothing"] == 0.3  # flag over checkpoint


def test_a_resolved_config_runs_again(small_fit, fathom, tmp_path):
    assert fathom(*small_fit, "--trainer.max_epochs", "2")[0] == 0
    (first,) = run_directories(tmp_path)
    code, error = fathom("fit", "--config", str(first / "config.yaml"), *QUICK, *small_fit[-4:])
    assert code == 0, error
    first, second = run_directories(tmp_path)
    assert config_of(first) == config_of(second)


def test_a_smoke_run_is_not_merged_and_succeeds(small_fit, fathom, tmp_path):
    with pytest.warns(UserWarning, match="not merged"):
        assert fathom(*small_fit, "--trainer.max_steps", "1")[0] == 0
    (run_directory,) = run_directories(tmp_path)
    merge = json.loads((run_directory / "summary.json").read_text())["merge"]
    assert merge["merged"] is False
    assert "λ is 0" in merge["reason"]
    assert not (run_directory / "merged.ckpt").exists()


def test_photos_are_sharded_and_trained_on(fathom, tmp_path, photos):
    shards, runs = tmp_path / "shards", tmp_path / "runs"
    assert fathom("shard", str(photos), str(shards), "--num_workers", "1")[0] == 0
    data = ["--data", "datamodules.PhotoStream", "--data.root", str(shards), "--data.num_workers", "1"]
    size = ["--data.batch_size", "4", "--data.image_size", "64", "--trainer.max_steps", "2"]
    options = [*data, *size, *QUICK, "--trainer.default_root_dir", str(runs)]
    with pytest.warns(UserWarning, match="not merged"):
        code, error = fathom("fit", "--config", "vanillanet_caltech101", *options)
    assert code == 0, error
    (run_directory,) = run_directories(runs, "vanillanet_caltech101")
    summary = json.loads((run_directory / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["train_images"] == 36


@pytest.fixture
def photos(tmp_path):
    """20 training and 4 test photos of noise in each of two classes."""
    for part, count in (("train", 20), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.effect_noise((90, 70), 40 + i).convert("RGB").save(folder / f"{i}.jpg")
    return tmp_path / "photos"


WRONG = [
    (["fitt"], "did you mean fit"),
    (["fit"], "--config"),
    (["fit", "--config", "experiments/nothing.yaml"], "nothing.yaml"),
    (["fit", "--config", DIGITS, "--modl.lr", "1"], "--modl.lr"),
    (["fit", "--config", DIGITS, "--model.lrr", "1"], "lrr"),
    (["fit", "--config", DIGITS, "--model.net.init_args.widht", "8"], "widht"),
    (["fit", "--config", DIGITS, "--trainer.max_epoch", "3"], "max_epoch"),
    (["fit", "--config", DIGITS, "--model.lr", "fast"], "lr"),
    (["fit", "--config", DIGITS, "--data", "datamodules.Digitss"], "Digitss"),
    (["fit", "--config", DIGITS, "--model.net", "lit_models.VanilaNet"], "VanilaNet"),
    (["fit", "--config", DIGITS, "--model.net.init_args.depth", "99"], "5 to 13"),
    (["fit", "--config", DIGITS, "--model.optimizer", "sdg"], "sdg"),
    (["fit", "--config", DIGITS, "--data.batch_size", "0"], "batch_size"),
    (["fit", "--config", DIGITS, "--data", "datamodules.SmallImages", "--data.root", "nowhere"], "nowhere"),
    (["test", "--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
    (["test", "--config", DIGITS, "--ckpt_path", "README.md"], "README.md"),
    (["convert", "vanillanet", "nowhere.pth", "out.ckpt"], "nowhere.pth"),
    (["convert", "resnet", "a", "b"], "resnet"),
]


@pytest.mark.parametrize(("args", "named"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_a_mistake_gets_one_sentence_and_leaves_nothing(args, named, fathom, tmp_path):
    runs = [] if args[0] == "convert" else ["--trainer.default_root_dir", str(tmp_path)]
    code, error = fathom(*args, *runs)
    assert code in (1, 2)
    sentences = [line for line in error.splitlines() if line.startswith("fathom: ")]
    assert len(sentences) == 1
    assert named in sentences[0]
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_width_is_named(quickstart_run, fathom, tmp_path):
    path = str(quickstart_run[0] / "merged.ckpt")
    code, error = fathom(
        *("test", "--ckpt_path", path, "--model.net.init_args.width", "16", *QUICK),
        *("--trainer.default_root_dir", str(tmp_path)),
    )
    assert code == 1
    assert f"{path} is of another network" in error


def test_a_checkpoint_for_other_classes_says_how_many_it_has(quickstart_run, fathom, tmp_path):
    path = str(quickstart_run[0] / "merged.ckpt")
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        image = tmp_path / "letters" / name
        image.parent.mkdir(parents=True)
        Image.linear_gradient("L").resize((28, 28)).save(image)
    data = ("--data", "SmallImages", "--data.root", str(tmp_path / "letters"), "--data.image_size", "28")
    code, error = fathom("test", "--ckpt_path", path, *data, *QUICK, "--trainer.default_root_dir", str(tmp_path))
    assert code == 1
    assert f"{path} is of a network with 10 classes, and these data have 2; to train it on them" in error


def test_help_lists_every_command(fathom, capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "quickstart", "convert"):
        assert f"fathom {command}" in printed


def test_the_base_config_is_read_for_every_command(fathom, capsys):
    from experiments.cli import TRAINER_COMMANDS
    from experiments.cli.command_line import BASE_CONFIG, FathomCLI

    assert BASE_CONFIG.is_file()
    for command in TRAINER_COMMANDS:
        with pytest.raises(SystemExit):
            FathomCLI([command, "--config", DIGITS, "--print_config"])
        assert yaml.safe_load(capsys.readouterr().out)["trainer"]["precision"] == "16-mixed"
