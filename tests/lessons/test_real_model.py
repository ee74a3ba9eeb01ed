"""Every part as a whole, with a reader's own sentence and a checkpoint of his own.

The checkpoint is shaped otherwise than tiny in every way, holds bfloat16, and lies on a device that is not the CPU
(`another_device`): what a look at it forgets to bring there, or back, is seen here.
"""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch
from another_device import PretendingMode, send_away
from nbclient import NotebookClient
from test_opening import SENTENCES

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
KIND_OF = dict(zip((path.stem for path in NOTEBOOKS), list(SENTENCES)[: len(NOTEBOOKS)], strict=True))
ELSEWHERE = f"""
import dataclasses
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from another_device import Event, PretendingMode, send_away

def real_model_elsewhere(checkpoint="", tokenizer="", load=show.real_model):
    real = load(checkpoint)
    PretendingMode().__enter__()
    torch.cuda.Event = Event
    return dataclasses.replace(real, model=send_away(real.model.bfloat16()))

show.real_model = real_model_elsewhere
"""


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
    shutil.copy(checkpoint_path("tiny") / "tokenizer.model", folder)
    return folder


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_look_of_a_part_is_taken_at_the_real_model(path):
    code = code_of(nbformat.read(path, 4))
    (section,) = (source for source in code if "show.real_model(" in source)
    if "lessons.looks" in code[0]:  # one call draws both models
        assert len(re.findall(r"^ *(?:\w+ = )?look\.\w+\(.*\breal\)", "\n".join(code), flags=re.MULTILINE)) >= 4
        return
    looks = re.findall(r"^def (look_at_\w+)\(model, tokenizer\)", "\n".join(code), flags=re.MULTILINE)
    assert len(looks) >= 3
    assert [look for look in looks if look not in section] == []


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.stem}-{KIND_OF[path.stem]}")
def test_a_part_runs_with_another_sentence_and_another_model(path, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("DECODING_LLAMA3_CHECKPOINT", str(checkpoint))
    sentence = SENTENCES[KIND_OF[path.stem]]
    (tmp_path / "opening.txt").write_text(sentence, encoding="utf-8")
    notebook = nbformat.read(path, 4)
    (set_up,) = (i for i, cell in enumerate(notebook.cells) if "show.set_up()" in cell.source)
    notebook.cells.insert(set_up + 1, nbformat.v4.new_code_cell(ELSEWHERE))
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.widget_registry.clear()  # answering an output widget it may miss the kernel's reply for ever
    client.execute()
    assert sentence in notebook.cells[set_up].outputs[0].text
    (section,) = (cell for cell in notebook.cells if "show.real_model(" in cell.source)
    text = "".join(output.get("text", "") for output in section.outputs)
    assert f"{checkpoint} ({dl.load_model(checkpoint).config.n_params:,} parameters)" in text
    real = [cell for cell in notebook.cells if "real" in cell.metadata.get("tags", [])]
    data = [output.get("data", {}) for cell in real for output in cell.outputs]
    looks = re.findall(r"\blook_at_(?!real_model)\w+", section.source)
    assert sum("image/png" in one for one in data) >= (len(looks) or 2)
    assert sum("image/png" in one or "<table" in one.get("text/html", "") for one in data) >= (len(looks) or 4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_the_device_refuses_what_a_gpu_refuses(model):
    model = send_away(model)
    with PretendingMode():
        there = torch.arange(3, device=model.norm.weight.device)
        assert there.device.type == "cuda"
        for mistake in (lambda: there + torch.ones(3), lambda: model(torch.tensor([[1, 2]]))):
            with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
                mistake()
        with pytest.raises(TypeError, match=r"Tensor\.cpu"):
            there.numpy()
        assert (there.cpu() + torch.ones(3)).tolist() == [1, 2, 3]
        assert model(there[None]).device.type == "cuda"
