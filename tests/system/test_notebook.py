"""The notebook runs against a real run, and is committed without what it printed."""

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.fixture
def notebook(repository):
    return nbformat.read(repository / "experiments" / "notebooks" / "load_checkpoint.ipynb", as_version=4)


def test_it_is_committed_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 6
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_it_loads_the_newest_run_and_shows_it(notebook, repository, quickstart_run, monkeypatch):
    run_directory, _ = quickstart_run
    monkeypatch.setenv("FATHOM_RUNS", str(run_directory.parents[1]))
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": repository / "experiments" / "notebooks"}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert run_directory.name in text
    assert "VanillaNet, λ = 1" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
