"""``net: timm:NAME`` on the command line, in a configuration file, and from a checkpoint."""

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from experiments.__main__ import main
from experiments.cli.short_names import expand, load
from lit_models import TimmBackbone, load_checkpoint

BASE = {
    "model": {"init_args": {"net": "timm:mobilenetv1_100", "optimizer": "adamw", "lr": 1e-3}},
    "data": {"class_path": "datamodules.Digits", "init_args": {"batch_size": 4}},
    "trainer": {"max_steps": 1, "limit_val_batches": 1, "callbacks": [{"class_path": "callbacks.GradientStatistics"}]},
}
QUICK = ["--wandb.mode", "disabled", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def fathom(tmp_path, capsys):
    """Runs a command on ``BASE``: exit code, last line of stderr, run directory of a success."""
    config = tmp_path / "timm_digits.yaml"
    config.write_text(yaml.safe_dump(BASE))

    def run(command, *args):
        runs = tmp_path / "runs"
        options = [*QUICK, "--trainer.default_root_dir", str(runs)]
        configs = [] if "--ckpt_path" in args else ["--config", str(config)]
        code = main([command, *configs, *args, *options])
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fathom: ")]
        newest = max(runs.glob("*/*"), key=lambda path: path.stat().st_mtime_ns, default=None)
        return code, "".join(error), newest

    return run


def test_the_shorthand_stands_for_the_class():
    spec = {"class_path": "lit_models.TimmBackbone", "init_args": {"name": "resnet18.a1_in1k"}}
    assert expand({"net": "timm:resnet18.a1_in1k"}) == {"net": spec}
    assert load("model: {net: timm:resnet18.a1_in1k, teacher: timm:resnet18}\nlr: 1e-3") == {
        "model": {"net": spec, "teacher": "timm:resnet18"},
        "lr": 1e-3,
    }
    for other in ("timm", "a timm:resnet18", "resnet18", "12", "null", "- 1"):
        assert load(other) == yaml.safe_load(other)


def test_a_network_in_a_file_and_its_checkpoint(fathom):
    code, error, run = fathom("fit")
    assert code == 0, error
    net = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert net["class_path"] == "lit_models.TimmBackbone"
    assert net["init_args"]["name"] == "mobilenetv1_100"
    columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"gradient_mean_abs/model.conv_stem", "gradient_norm/model.classifier"} <= set(columns)
    model = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert isinstance(model.net, TimmBackbone)
    assert model(torch.randn(1, 1, 8, 8)).shape == (1, 10)


def test_a_flag_goes_over_the_file_and_weights_are_asked_for_once(fathom, tmp_path):
    weights = tmp_path / "weights.safetensors"
    arguments = {"img_size": 8, "patch_size": 4}
    save_file(timm.create_model("test_vit", in_chans=1, num_classes=3, **arguments).state_dict(), weights)
    code, error, run = fathom(
        *("fit", "--model.net", "timm:test_vit", "--model.net.frozen", "true", "--model.no_bias_decay", "false"),
        *("--model.net.pretrained", str(weights), "--model.net.model_args", str(arguments)),
    )
    assert code == 0, error
    net = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert net["init_args"]["pretrained"] == str(weights)
    weights.unlink()
    checkpoint = run / "checkpoints" / "last.ckpt"
    trained = load_checkpoint(checkpoint)
    assert trained.net.frozen
    assert trained.hparams["net"]["init_args"]["pretrained"] is False
    code, error, tested = fathom("test", "--ckpt_path", str(checkpoint))
    assert code == 0, error
    assert tested != run


def test_an_unknown_network_gets_the_nearest_names(fathom):
    code, error, run = fathom("fit", "--model.net", "timm:mobilnetv1_100")
    assert code == 1
    assert "mobilenetv1_100" in error
    assert run is None


def test_a_network_without_residual_blocks_is_refused_by_name(fathom):
    code, error, _ = fathom("fit", "--trainer.callbacks+", "callbacks.StochasticDepth")
    assert code == 1
    assert "TimmBackbone" in error
