"""The plugin that runs the notebooks' cells of the real model, or skips them."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def notebook(tmp_path):
    """Two cells, the first tagged `real`; what is kept of the first is wrong."""
    cells = []
    for code, kept, tags in (("print('real')", "another\n", ["real"]), ("print('tiny')", "tiny\n", [])):
        output = nbformat.v4.new_output("stream", name="stdout", text=kept)
        metadata = {"tags": tags}
        cells.append(
            nbformat.v4.new_code_cell(code, execution_count=len(cells) + 1, outputs=[output], metadata=metadata)
        )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "part.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def cache(tmp_path):
    """A cache with what looks like SmolLM2."""
    folder = tmp_path / "cache" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    return folder.parent


def run(notebook, cache, **environment) -> str:
    """What a run of nbval prints; without REAL but where it is given."""
    command = [sys.executable, "-m", "pytest", "-p", "real_cells", "--nbval", notebook]
    clean = {name: value for name, value in os.environ.items() if name != "REAL"}
    environment = {**clean, "DECODING_LLAMA3_CACHE": str(cache), "PYTHONPATH": str(ROOT / "tests"), **environment}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return finished.stdout + finished.stderr


def test_a_real_cell_is_compared_where_the_model_is(notebook, cache):
    assert "1 failed, 1 passed" in run(notebook, cache)


def test_a_real_cell_is_skipped_where_it_is_not(notebook, tmp_path):
    assert "1 passed, 1 skipped" in run(notebook, tmp_path / "empty")


def test_no_real_cell_is_skipped_where_the_real_model_was_asked_for(notebook, tmp_path):
    printed = run(notebook, tmp_path / "empty", REAL="1")
    assert "passed" not in printed
    assert "run 'decoding-llama3 download smollm2'" in printed


def test_descriptions_of_figures_may_differ_and_other_outputs_may_not(notebook, cache):
    kept = nbformat.read(notebook, as_version=4)
    for cell, changed in zip(kept.cells, ("description", "class"), strict=True):
        cell.source = (
            "from IPython.display import display\n"
            "display({'text/html': '<p class=\"figure-description\">2.51 times</p>'}, raw=True)"
        )
        markup = '<p class="figure-description">2.52 times</p>'
        markup = markup if changed == "description" else markup.replace("figure-", "table-")
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": markup})]
    nbformat.write(kept, notebook)
    printed = run(notebook, cache)
    assert "1 failed, 1 passed" in printed
    assert "Cell 1" in printed
