"""What users of Lightning expect to work, works in a run too."""

import pytest
import torch
import yaml

from experiments.__main__ import main
from lit_models import load_checkpoint


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    """Of a fit with Lightning's model summary and a logger of the user's; also the folder of the latter."""
    root = tmp_path_factory.mktemp("habits")
    flags = ["--trainer.default_root_dir", str(root / "runs"), "--trainer.enable_model_summary", "true"]
    flags += ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", str(root / "csv")]
    assert main(["fit", "--config", str(tiny_config), *flags]) == 0
    (directory,) = root.glob("runs/tiny/*")
    return directory, root / "csv"


def test_any_yaml_loader_reads_what_a_logger_wrote(run):
    (file,) = run[1].rglob("hparams.yaml")
    written = yaml.safe_load(file.read_text())
    assert written["mean"] == pytest.approx(load_checkpoint(run[0]).hparams["mean"])
    assert written["data"]["init_args"]["image_size"] == 8
    assert written["net"]["init_args"]["depth"] == 8


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
