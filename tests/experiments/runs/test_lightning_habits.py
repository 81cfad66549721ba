"""What users of Lightning expect to work, works in a run too."""

from importlib.util import find_spec

import pytest
import torch
import yaml

from experiments.__main__ import main
from experiments.runs.fits import fits_below
from lit_models import load_checkpoint


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """Of a fit with Lightning's model summary and two loggers of the user's; also the folder of the second."""
    root = tmp_path_factory.mktemp("habits")
    flags = ["--trainer.default_root_dir", str(root / "runs"), "--trainer.enable_model_summary", "true"]
    elsewhere = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(root / "csv")}}
    (root / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": ["CSVLogger", elsewhere]}}))
    configs = ["--config", str(tiny_config), "--config", str(root / "loggers.yaml")]
    assert main(["fit", *configs, "--name", "tiny", *flags]) == 0
    (directory,) = root.glob("runs/tiny/*")
    return directory, root / "csv"


def test_any_yaml_loader_reads_what_a_logger_wrote(run):
    (file,) = run[1].rglob("hparams.yaml")
    written = yaml.safe_load(file.read_text())
    assert written["mean"] == pytest.approx(load_checkpoint(run[0]).hparams["mean"])
    assert written["data"]["init_args"]["image_size"] == 8
    assert written["net"]["init_args"]["depth"] == 8


def test_a_logger_without_a_folder_writes_into_the_run(run):
    directory, _ = run
    (file,) = directory.rglob("lightning_logs/version_0/metrics.csv")
    assert "val/top1" in file.read_text()
    assert fits_below(directory.parents[1]) == [directory]  # those rows are no run of their own
    settings = yaml.safe_load((directory / "config.yaml").read_text())["trainer"]["logger"]
    assert settings[0]["init_args"]["save_dir"] == "<run directory>"  # of whichever run takes this configuration


def test_tensorboard_without_a_folder_writes_into_the_run(tiny_config, fathom, tmp_path):
    root = ("--trainer.default_root_dir", tmp_path)
    code, sentence = fathom("fit", "--config", tiny_config, *root, "--trainer.logger", "TensorBoardLogger")
    if not (find_spec("tensorboard") or find_spec("tensorboardX")):
        assert (code, list(tmp_path.iterdir())) == (1, [])
        assert "Neither `tensorboard` nor `tensorboardX` is available" in sentence
        pytest.skip("neither tensorboard nor tensorboardX is installed")
    (directory,) = tmp_path.glob("tiny/*")
    assert list(directory.glob("lightning_logs/version_0/events.out.tfevents.*"))
    assert yaml.safe_load((directory / "lightning_logs/version_0/hparams.yaml").read_text())["seed_everything"] == 42


def test_a_model_has_an_example_of_its_input_and_goes_to_onnx(run, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    runtime = pytest.importorskip("onnxruntime")
    model = load_checkpoint(run[0])
    assert model.example_input_array.shape == (1, 1, 8, 8)
    model.to_onnx(tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    (name,) = [given.name for given in session.get_inputs()]
    (logits,) = session.run(None, {name: model.example_input_array.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), model(model.example_input_array), atol=1e-5)
