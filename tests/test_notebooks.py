"""The notebooks: their two forms agree, show their results, and run.

The percent script is the source; `python tests/test_notebooks.py` runs every notebook
and writes its .ipynb again.
"""

import os
import re
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SOMEWHERE = re.compile(r"(/home/|/root/|/tmp/|/Users/|site-packages|\.venv|[A-Z]:\\)")

every_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)


def executed(script):
    """The notebook of a percent script, with its outputs and nothing of the machine."""
    notebook = jupytext.read(script)
    nbclient.NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", {}
    return notebook


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def committed(script):
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


@every_notebook
def test_a_notebook_has_the_cells_of_its_script(script):
    assert cells(committed(script)) == cells(jupytext.read(script))


@every_notebook
def test_a_committed_notebook_was_run_from_top_to_bottom_and_names_no_path(script):
    code = [cell for cell in committed(script).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    text = "".join(output.text for output in outputs if "text" in output)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert not SOMEWHERE.search(text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@every_notebook
def test_a_notebook_runs(script, monkeypatch):
    monkeypatch.setenv("RPJAX_FAST", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    notebook = executed(script)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)


if __name__ == "__main__":
    os.environ.pop("RPJAX_FAST", None)
    for path in SCRIPTS:
        nbformat.write(executed(path), path.with_suffix(".ipynb"))
