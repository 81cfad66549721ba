"""Fits of any length and any precision, by the command line."""

import pytest
import timm
import torch
import yaml

from lit_models.checkpoints import read_checkpoint

VANILLANET = ("--model.net", "VanillaNet", "--model.net.depth", "5", "--model.net.width", "4")
SMALL = ("--model.net.stem_stride", "1")


@pytest.mark.parametrize("command", ["fit", "explain"])
@pytest.mark.parametrize(
    "flags",
    [
        ("--trainer.callbacks+", "LearningRateWarmup", "--trainer.callbacks.epochs", "1"),
        ("--model.schedule", "step", "--model.milestones", "[1]"),
        (*VANILLANET, *SMALL, "--trainer.callbacks+", "ActivationAnnealing"),
    ],
)
def test_settings_in_epochs_hold_in_a_fit_of_a_number_of_steps(command, flags, tiny_config, fathom, tmp_path):
    steps = ("--trainer.max_epochs", "-1", "--trainer.max_steps", "3")
    runs = ("--trainer.default_root_dir", tmp_path)
    assert fathom(command, "--config", tiny_config, *steps, *runs, *flags) == (0, "")


def test_a_fit_may_be_of_a_time_alone(tiny_config, fathom, tmp_path):
    endless = ("--trainer.max_epochs", "-1", "--model.schedule", "constant", "--trainer.max_time", "00:00:00:01")
    assert fathom("explain", "--config", tiny_config, *endless) == (0, "")
    assert fathom("fit", "--config", tiny_config, *endless, "--trainer.default_root_dir", tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("64", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_images_have_the_precision_of_the_weights(precision, dtype, tiny_config, fathom, tmp_path):
    given = ("--trainer.precision", precision, "--trainer.default_root_dir", tmp_path / "runs")
    callbacks = ("--trainer.callbacks+", "StochasticDepth", "--trainer.callbacks.mode", "sample")
    mixed = ("--data.mixup_alpha", "0.2")
    assert fathom("fit", "--config", tiny_config, *given, *callbacks, *mixed) == (0, "")
    (run_directory,) = (tmp_path / "runs").glob("tiny/*")
    checkpoint = run_directory / "checkpoints" / "last.ckpt"
    assert {t.dtype for name, t in read_checkpoint(checkpoint)["state_dict"].items() if "weight" in name} == {dtype}
    assert fathom("test", "--ckpt_path", run_directory, "--trainer.precision", precision) == (0, "")


def test_averaged_weights_have_the_precision_of_the_weights_or_are_refused(tiny_config, fathom, tmp_path):
    averaging = ("--trainer.callbacks+", "WeightAveraging", "--trainer.callbacks.decay", "0.5")
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    fit = ("fit", "--config", tiny_config, *runs, *averaging, "--trainer.precision")
    assert fathom(*fit, "64-true") == (0, "")
    code, sentence = fathom(*fit, "bf16-true")
    assert (code, sentence[:44]) == (1, "WeightAveraging can't average weights of bf1")


def test_a_teacher_learned_in_float32_teaches_in_any_precision(tiny_config, tiny_run, fathom, tmp_path):
    teacher = ("--model", "Distillation", "--model.teacher", tiny_run / "checkpoints" / "last.ckpt")
    runs = ("--trainer.default_root_dir", tmp_path)
    for precision in ("64-true", "bf16-true"):
        assert fathom("fit", "--config", tiny_config, *teacher, *runs, "--trainer.precision", precision) == (0, "")


@pytest.mark.parametrize("command", ["fit", "explain"])
def test_a_teacher_of_other_images_is_noticed_before_the_first_step(command, tiny_config, fathom, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("mobilenetv1_100", num_classes=10).state_dict(), weights)
    teacher = ("--model", "Distillation", "--model.teacher", "timm:mobilenetv1_100", "--model.teacher_weights", weights)
    runs = ("--trainer.default_root_dir", tmp_path / "runs")
    code, sentence = fathom(command, "--config", tiny_config, *teacher, *runs)
    assert code == 1
    assert "the teacher's EfficientNet can't take images of 8×8 pixels and 1 channels" in sentence
    assert list(tmp_path.rglob("metrics.csv")) == []


def test_a_teacher_of_timm_may_be_named_in_a_file(tiny_config, fathom, tmp_path):
    config = tmp_path / "distilled.yaml"
    arguments = {"teacher": "timm:nothing", "teacher_weights": "nowhere.pth"}
    config.write_text(yaml.safe_dump({"model": {"class_path": "Distillation", "init_args": arguments}}))
    code, sentence = fathom("explain", "--config", tiny_config, "--config", config)
    assert code == 1
    assert "timm has no model 'nothing'" in sentence
