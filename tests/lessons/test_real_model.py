"""Section 'On the real model' of every part, on a checkpoint that is shaped otherwise than tiny in every way."""

import ast
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint import checkpoint_directory, save_huggingface

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    config = dl.LlamaConfig(
        dim=144,
        n_layers=5,
        n_heads=9,
        n_kv_heads=3,
        hidden_dim=352,
        vocab_size=4096,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        rope_scaling=dl.LlamaConfig.from_preset("llama3.1-8b").rope_scaling,
        tie_embeddings=False,
        max_seq_len=4096,
    )
    torch.manual_seed(0)
    save_huggingface(dl.Transformer(config), folder, torch.bfloat16)
    shutil.copy(checkpoint_directory("tiny") / "tokenizer.model", folder)
    return folder


def parsed(source: str) -> ast.Module:
    return ast.parse(re.sub(r"^(\s*)%.*", r"\1pass", source, flags=re.MULTILINE))


def names_used(source: str) -> set[str]:
    return {node.id for node in ast.walk(parsed(source)) if isinstance(node, ast.Name)}


def names_made(source: str) -> set[str]:
    made = set()
    for node in parsed(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            made |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return made


def section(path: Path) -> list[str]:
    """The cell on the real model, behind those cells alone that make what it uses."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (last,) = (i for i, source in enumerate(sources) if "show.real_model(" in source)
    chosen, needed = [sources[last]], names_used(sources[last])
    for source in reversed(sources[:last]):
        if names_made(source) & needed:
            chosen.insert(0, source)
            needed |= names_used(source)
    return chosen


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_section_runs_on_a_checkpoint_of_another_shape(path, checkpoint, monkeypatch):
    monkeypatch.setenv("DECODING_LLAMA3_CHECKPOINT", str(checkpoint))
    cells = [nbformat.v4.new_code_cell(source) for source in section(path)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[-1].outputs
    text = "".join(output.get("text", "") for output in outputs)
    assert f"{checkpoint} (" in text
    assert f"{dl.load_model(checkpoint, dtype=torch.float32).config.n_params:,} parameters" in text
    assert any("image/png" in output.get("data", {}) for output in outputs)
