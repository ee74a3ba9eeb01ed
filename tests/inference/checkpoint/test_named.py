"""Models called by a name: smollm2 in the user's cache, and what Ollama has pulled."""

import hashlib
import json

import pytest
import torch
from gguf_files import write_gguf
from test_gguf import wide
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.named import SMOLLM2, named_model, ollama_models

MODEL_LAYER = "application/vnd.ollama.image.model"


@pytest.fixture
def ollama(tmp_path, monkeypatch):
    """A folder of Ollama's with one model, and a function that writes a manifest of it under another name."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    blobs = tmp_path / "ollama" / "blobs"
    blobs.mkdir(parents=True)
    model = dl.Transformer(wide())
    write_gguf(model, tmp_path / "model.gguf", "Q8_0")
    content = (tmp_path / "model.gguf").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / f"sha256-{digest}").write_bytes(content)
    layer = {"mediaType": MODEL_LAYER, "digest": f"sha256:{digest}", "size": len(content)}
    other = {"mediaType": "application/vnd.ollama.image.license", "digest": f"sha256:{'0' * 64}", "size": 5}

    def pull(name: str, **change) -> None:
        manifest = tmp_path / "ollama" / "manifests" / name
        manifest.parent.mkdir(parents=True, exist_ok=True)
        layers = [other, layer | change]
        manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))

    pull("registry.ollama.ai/library/llama3.2/1b")
    return pull


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.ollama.ai/library/smollm/latest", "smollm"),
        ("registry.ollama.ai/library/smollm/latest", "smollm:latest"),
        ("registry.ollama.ai/someone/tales/v2", "someone/tales:v2"),
        ("hf.co/someone/tales-GGUF/Q8_0", "hf.co/someone/tales-GGUF:Q8_0"),
    ],
)
def test_what_ollama_has_pulled_is_loaded_by_its_name(ollama, manifest, name):
    ollama(manifest)
    model = dl.load_model(name, dtype=torch.float32)
    assert model.config == wide()
    assert name in {*ollama_models(), *(found.removesuffix(":latest") for found in ollama_models())}


def test_a_folder_of_that_name_goes_first(ollama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_huggingface(dl.Transformer(dl.LlamaConfig.from_preset("tiny")), tmp_path / "llama3.2:1b")
    assert named_model("llama3.2:1b") is None
    assert dl.load_model("llama3.2:1b").config.dim == 256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"digest": "sha256:" + "a" * 64},
            "is not the whole file that .* names: pull the model again with Ollama",
        ),
        ({"size": 5}, "is not the whole file that .* names: pull the model again with Ollama"),
        ({"digest": "sha256:../../../../etc/passwd"}, "expected one, by its SHA-256"),
        ({"digest": 5}, "expected one, by its SHA-256"),
        ({"mediaType": "application/vnd.ollama.image.license"}, "names 0 models"),
    ],
    ids=["no blob", "another size", "another folder", "no digest", "no model"],
)
def test_a_model_that_is_not_whole_is_refused(ollama, change, words):
    ollama("registry.ollama.ai/library/broken/latest", **change)
    with pytest.raises(ValueError, match=words):
        dl.load_model("broken")


@pytest.mark.parametrize("content", ["", "[]", '{"layers": 5}', '{"layers": [5]}', "{}"])
def test_a_damaged_manifest_is_refused(ollama, tmp_path, content):
    ollama("registry.ollama.ai/library/broken/latest")
    (tmp_path / "ollama/manifests/registry.ollama.ai/library/broken/latest").write_text(content)
    with pytest.raises(ValueError, match="broken/latest"):
        dl.load_model("broken")


@pytest.mark.parametrize("name", ["nothing:1b", "../ollama", "a/b/c/d", "a:b:c", "", ".", "..", "x/..:y"])
def test_another_name_is_no_model_of_ollamas(ollama, name):
    with pytest.raises(ValueError, match=r"no directory|neither config"):
        dl.load_model(name)


def test_smollm2_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DECODING_LLAMA3_CACHE", str(tmp_path))
    for load in (dl.load_model, dl.load_tokenizer):
        with pytest.raises(ValueError, match="run 'decoding-llama3 download smollm2', once"):
            load("smollm2")


def test_the_list_has_every_model_and_says_what_is_missing(ollama, tmp_path, monkeypatch):
    monkeypatch.setenv("DECODING_LLAMA3_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--someone--tales" / "snapshots" / "abc"
    save_huggingface(dl.Transformer(dl.LlamaConfig.from_preset("tiny")), snapshot)
    lines = CliRunner().invoke(app, ["models"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["tiny", "smollm2", "someone/tales", "llama3.2:1b"]
    assert "5.6 M parameters, context 512 tokens" in lines[0]
    assert "not loaded: smollm2 is not on this machine" in lines[1]
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / SMOLLM2).write_bytes((tmp_path / "model.gguf").read_bytes())
    assert "M parameters" in CliRunner().invoke(app, ["models"]).stdout.splitlines()[1]
