"""Every notebook as it opens on Google Colab: alone in an empty folder, with Colab's packages and 12 GB of memory.

What is left out: Colab's Python, 3.13, and its torch (.ci/colab_packages.txt says why); its kernel and its page;
the way from the badge to the first cell. The T4 is pretended: tensors that go there stay in this machine's memory,
and no kernel of CUDA runs. Part 3 loads a model there by its form, gated on a hub, and reads with it; Part 7 could
not, because it compiles. What the looks do on a card is the matter of tests/lessons/test_real_model.py.
"""

import json
import shutil

import nbformat
import pytest
import torch
from hub_server import TOKEN, HubServer
from rehearsal import (
    CARD,
    HOME,
    MEMORY,
    ROOT,
    Colab,
    complaints,
    insert_before,
    read_notebook,
    text_of,
)

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path

pytestmark = pytest.mark.colab

NOTEBOOKS = {path.name[0]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
FORM = "show.real_model("
GATED = "meta-llama/Meta-Llama-3-8B"  # one of the form's own; here a small model bears the name
WITHOUT_A_SECRET = f"""
from google.colab import userdata
secret = userdata.secrets.pop("HF_TOKEN")
try:
    show.real_model({GATED!r})
except ValueError as error:
    print(error)
userdata.secrets["HF_TOKEN"] = secret
"""
READ_ON_THE_CARD = """
import decoding_llama3.inference.memory as memory

def read_with(real):
    logits = real.model(real.ids(opening))
    at = real.model.norm.weight
    print(at.device, at.dtype, type(real.model.layers[0].attention.wq).__name__, bool(logits.isfinite().all()))

read_with(real)
whole = memory.needed_bytes(real.model.config, torch.float16)
torch.cuda.mem_get_info = lambda device=None: (whole - 1, whole - 1)  # as much too small as a T4 for the 8B
read_with(show.real_model(checkpoint))
"""
EIGHT_B = """
import decoding_llama3.inference.memory as memory
fit = memory.choose_fit(dl.LlamaConfig.from_preset("llama3-8b"), "cuda")
print(fit.dtype, fit.quantize)
"""
FREE = """
import decoding_llama3.inference.memory as memory
print(memory.free_bytes("cpu"))
"""


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    return Colab(tmp_path_factory.mktemp("colab"))


@pytest.fixture(autouse=True)
def _no_package_changes(colab):
    """Of those that Colab had before; and pip finds no more in conflict than before."""
    yield
    assert colab.changed() == []
    assert [line for line in colab.conflicts() if line not in colab.conflicts_at_first] == []


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with one model, gated."""
    folder = tmp_path_factory.mktemp("model")
    config = dl.LlamaConfig(
        dim=144,
        n_layers=3,
        n_heads=9,
        n_kv_heads=3,
        hidden_dim=352,
        vocab_size=4096,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        tie_embeddings=False,
        max_seq_len=4096,
    )
    torch.manual_seed(0)
    save_huggingface(dl.Transformer(config), folder, torch.bfloat16)
    shutil.copy(checkpoint_path("tiny") / "tokenizer.model", folder)
    with HubServer() as hub:
        hub.add_folder(GATED, folder, gated=True)
        yield hub


def cell_with(notebook: nbformat.NotebookNode, text: str) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in notebook.cells if text in cell.source)
    return cell


def check_first_cells(notebook: nbformat.NotebookNode) -> None:
    """What was asked to be installed and downloaded is there, and nothing warns."""
    first = notebook.cells[0]
    assert complaints(first) == []
    assert "smollm2 is in" in text_of(first)
    assert "tiny (5,573,888 parameters) on cpu in float32" in text_of(first)
    assert [text_of(cell, "stderr") for cell in notebook.cells if text_of(cell, "stderr")] == []


@pytest.mark.parametrize("part", ["1", "7"])
def test_a_part_runs_from_top_to_bottom(colab, part, tmp_path):
    notebook = read_notebook(NOTEBOOKS[part], checkpoint="smollm2")
    insert_before(notebook, "", FREE)
    colab.run(notebook, tmp_path)
    check_first_cells(notebook)
    assert "smollm2 (134,515,008 parameters) on cpu in float32" in text_of(cell_with(notebook, FORM))
    assert 0 < int(text_of(notebook.cells[-1])) < MEMORY
    pictures = [out for cell in notebook.cells for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 10


@pytest.mark.parametrize(
    ("part", "choice", "loaded"),
    [
        ("2", "", "smollm2 (134,515,008 parameters)"),
        ("3", "tiny", "tiny (5,573,888 parameters)"),
        ("4", "smollm2", "smollm2 (134,515,008 parameters)"),
        ("5", "tiny", "tiny (5,573,888 parameters)"),
        ("6", "", "smollm2 (134,515,008 parameters)"),
    ],
)
def test_a_part_runs_until_the_model_of_its_form_is_there(colab, part, choice, loaded, tmp_path):
    notebook = read_notebook(NOTEBOOKS[part], until=FORM, checkpoint=choice)
    colab.run(notebook, tmp_path)
    check_first_cells(notebook)
    assert f"{loaded} on cpu in float32" in text_of(notebook.cells[-1])


def test_a_gated_model_of_the_hub_is_loaded_on_a_t4_as_info_says(colab, hub, tmp_path):
    """In float16, which that card computes in; in int8 where float16 does not fit, as the 8B does not."""
    notebook = read_notebook(NOTEBOOKS["3"], until=FORM, checkpoint=GATED)
    insert_before(notebook, FORM, WITHOUT_A_SECRET)
    insert_before(notebook, FORM, EIGHT_B)
    insert_before(notebook, "", READ_ON_THE_CARD)
    secrets = json.dumps({"HF_TOKEN": TOKEN})
    colab.run(notebook, tmp_path, COLAB_CARD=str(CARD), COLAB_SECRETS=secrets, HF_ENDPOINT=hub.url)
    check_first_cells(notebook)
    without, eight_b, form, reading = notebook.cells[-4:]
    assert "is gated: accept its licence" in text_of(without)
    assert "put a token among this notebook's secrets" in text_of(without)
    assert text_of(eight_b) == "torch.float16 int8\n"
    assert f"{GATED}, version {hub.models[GATED].commits['main'][:7]}: 3 files" in text_of(form)
    assert "parameters) on cuda in float16" in text_of(form)
    at_first, loaded, again = text_of(reading).splitlines()
    assert at_first == "cuda:0 torch.float16 Linear True"
    assert "parameters) on cuda in int8" in loaded
    assert again == "cuda:0 torch.float16 Int8Linear True"
    assert hub.sent("model.safetensors") == 1


def test_what_the_cell_installed_is_this_tree(colab):
    """It comes after the others: they have installed it."""
    (line,) = (line for line in colab.freeze() if line.startswith("decoding-llama3"))
    assert line == f"decoding-llama3 @ git+{HOME}@{colab.commit}"
