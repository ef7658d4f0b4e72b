"""The notebook runs from its first cell to its last, in a kernel of its own."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "docs" / "first-run.ipynb"
PICTURES = ROOT / "examples" / "resnet_pictures.ipynb"


def test_every_cell_of_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(code[0].outputs[-1].data["text/plain"].strip("'")) == 64
    assert "label-only" in code[2].outputs[-1].data["text/html"]
    assert "sources: user-" in code[4].outputs[0].text
    assert (tmp_path / "runs" / "notebook" / "run.toml").is_file()


@pytest.mark.slow
def test_the_notebook_of_pictures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(PICTURES.parent), *filter(None, sys.path)])
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(PICTURES, as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].outputs[-1].data["text/plain"] == "150"
    assert "disc" in "".join(output.text for output in code[1].outputs)
    assert "resnet_pictures:ResNet18" in code[2].outputs[-1].data["text/html"]
    assert (tmp_path / "runs" / "cameras" / "report.html").is_file()


@pytest.mark.parametrize("path", [NOTEBOOK, PICTURES], ids=lambda path: path.stem)
def test_the_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not [
        cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")
    ]
