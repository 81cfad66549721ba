"""The notebooks run against real runs, and are committed without what they printed."""

import ast
import json

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

from experiments import load_run
from experiments.__main__ import main

NAMES = ("attention_maps", "compare_runs", "lesions_and_paths", "load_run", "merge_vanillanet", "stochastic_depth")


@pytest.fixture
def read(repository):
    return lambda name: nbformat.read(repository / "experiments" / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.fixture
def execute(read, monkeypatch, capsys):
    """Runs the code of a notebook, but for the display of its last lines; its names, what it printed, and its axes."""

    def execute(name, **environment):
        for variable, value in environment.items():
            monkeypatch.setenv(f"FATHOM_{variable}", str(value))
        names = {"__name__": "__main__"}
        try:
            with plt.rc_context({"backend": "agg"}):
                for cell in read(name).cells:
                    if cell.cell_type == "code":
                        exec(cell.source, names)
                axes = [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]
        finally:
            plt.close("all")
        return names, capsys.readouterr().out, axes

    return execute


@pytest.fixture(scope="session")
def seeds(tiny_config, tmp_path_factory):
    """Fits with two learning rates and two seeds, of networks with stochastic depth; a test lies beside them."""
    root = tmp_path_factory.mktemp("seeds") / "runs"
    for lr in ("0.01", "0.1"):
        for seed in ("0", "1"):
            flags = ["--model.lr", lr, "--seed_everything", seed, "--trainer.callbacks+=StochasticDepth"]
            assert main(["fit", "--config", str(tiny_config), *flags, "--trainer.default_root_dir", str(root)]) == 0
    run = load_run(root)
    flags = ["--ckpt_path", str(run.directory), "--wandb.mode", "disabled", "--trainer.default_root_dir", str(root)]
    assert main(["test", *flags, "--config", str(run.directory / "config.yaml")]) == 0
    return root


def test_they_are_committed_without_outputs_and_read_no_yaml(read, repository):
    found = sorted(path.stem for path in (repository / "experiments" / "notebooks").glob("*.ipynb"))
    assert found == sorted(NAMES)
    for name in NAMES:
        cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
        assert len(cells) >= 3
        assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
        assert "yaml" not in json.dumps([cell.source for cell in cells])
        for cell in cells:
            ast.parse(cell.source)


def test_a_run_is_loaded_in_a_kernel(read, quickstart_run, repository, monkeypatch):
    """The one that is run as a user does."""
    run_directory, _ = quickstart_run
    monkeypatch.setenv("FATHOM_RUNS", str(run_directory.parents[1]))
    notebook = read("load_run")
    resources = {"metadata": {"path": repository / "experiments" / "notebooks"}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert f"{run_directory.name}: VanillaNet, " in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("activation_lambda" in output.get("data", {}).get("text/html", "") for output in outputs)


def test_a_vanillanet_is_merged_step_by_step(execute, quickstart_run):
    run_directory, _ = quickstart_run
    names, printed, axes = execute("merge_vanillanet", RUNS=run_directory)
    assert "λ = 1" in printed
    parameters = [count for _, count, _ in names["steps"]]
    assert parameters[0] > parameters[-1]
    assert parameters[-1] == load_run(run_directory).summary["merge"]["parameters_merged"]
    assert max(difference for *_, difference in names["steps"]) < 1e-10
    assert len(axes) == 2


def test_stochastic_depth_is_inspected(execute, seeds):
    names, printed, axes = execute("stochastic_depth", RUNS=seeds)
    assert "3 blocks, p_l from 0.83 to 0.50" in printed
    assert abs(names["depths"].mean() - 2.0) < 0.2
    assert {"skipped, no gradient" in line for line in printed.splitlines() if line.startswith("layer")} == {
        True,
        False,
    }
    assert len(axes) == 3


def test_lesions_and_paths_of_two_libraries(execute, tiny_run):
    names, printed, axes = execute("lesions_and_paths", RUNS=tiny_run)
    assert printed.count("add up to 1.0000") == 2
    assert len(axes[0].lines) == 5, "errors and the whole of two networks, and chance"
    assert names["timms"].name == "timm:test_resnet"


def test_runs_are_compared(execute, seeds):
    names, printed, axes = execute("compare_runs", RUNS=seeds)
    assert [group.name for group in names["groups"]] == ["lr 0.01", "lr 0.1"]
    assert [len(group.runs) for group in names["groups"]] == [2, 2]
    assert names["interval"].low < names["interval"].high
    assert "(Wilson)" in printed
    assert len(axes) == 1


def test_attention_maps_lie_side_by_side(execute):
    pytest.importorskip("captum", reason="the extra `attention` is not installed")
    names, printed, axes = execute("attention_maps", IMAGE_SIZE=64)
    assert len(axes) == 6
    assert printed.count("half of the attention on") == 4
    assert names["maps"].shape == (2, 64, 64)


def test_a_run_in_two_lines(seeds, tiny_run):
    run = load_run(seeds)
    model, data = run.model(), run.data()
    images, _ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert model(images).shape == (32, 10)
    assert run.config["model"]["init_args"]["lr"] == 0.1, "the newest fit, and not the test that is newer"
    assert run.summary["status"] == "finished"
    epochs, accuracies = run.curve("val/top1")
    assert epochs.tolist() == [0]
    assert accuracies.item() == pytest.approx(run.summary["metrics"]["val/top1"])
    assert load_run(str(tiny_run)).directory == tiny_run
    with pytest.raises(KeyError, match=r"has logged no val/top9, but .*val/top1"):
        run.curve("val/top9")


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no metrics\.csv of a training run: give a run directory"):
        load_run(tmp_path)
