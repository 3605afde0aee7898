"""The tutorial runs as it stands, and its commands exist."""

import os
import sys
from pathlib import Path

import pytest

from page_commands import Line, parse

nbformat = pytest.importorskip("nbformat")
PATH = Path(__file__).parents[1] / "docs/tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return "".join(output.get("text", "") for cell in code(notebook) for output in cell.outputs)


def test_the_notebook_is_valid_and_its_outputs_are_small(notebook):
    nbformat.validate(notebook)
    assert PATH.stat().st_size < 200_000
    assert "filmstrip: " not in printed(notebook) and "/home/" not in printed(notebook)


def test_options_of_its_commands_exist(notebook):
    sources = [cell.source.replace("\\\n", " ") for cell in code(notebook)]
    lines = [line for source in sources for line in source.splitlines() if line.startswith("!filmstrip ")]
    assert len(lines) > 8
    for number, line in enumerate(lines):
        if line.startswith("!filmstrip generate "):
            continue  # whose options are those of the run
        parse(Line(number, line[1:].replace("{STEPS}", "80"), "sh", None))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "filmstrip: " not in printed(notebook), printed(notebook)  # a command that ends with an error
    made = tmp_path / "tutorial"
    assert all((made / name).exists() for name in ("runs/named/report.html", "features/index.parquet", "samples.png"))
    assert any("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)
