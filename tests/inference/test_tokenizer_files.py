"""Where a checkpoint's tokenizer is found, and what is said when it is not."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import shrink

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_directory

TINY = checkpoint_directory("tiny") / "tokenizer.model"


def test_metas_own_is_found_without_running_its_package():
    script = (
        "import sys, decoding_llama3 as dl; assert dl.load_tokenizer('llama3').n_vocab == 128256;"
        "print([name for name in sys.modules if name.startswith('llama_models')])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run 'pip install llama-models'"):
        dl.load_tokenizer("llama3")


def test_tiny_has_its_own():
    tokenizer, config = dl.load_tokenizer("tiny"), dl.LlamaConfig.from_preset("tiny")
    assert tokenizer.n_vocab == config.vocab_size == 4096


@pytest.mark.parametrize("place", ["tokenizer.model", "original/tokenizer.model"])
def test_it_lies_beside_the_weights(tmp_path, place):
    """Hugging Face's copies of Llama 3 keep Meta's files in a folder 'original'."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    shutil.copy(TINY, tmp_path / place)
    assert dl.load_tokenizer(tmp_path).encode("a king") == dl.load_tokenizer(TINY).encode("a king")


def test_only_a_tokenizer_json_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"only a tokenizer\.json.* use load_tokenizer\('llama3'\)"):
        dl.load_tokenizer(tmp_path)


def test_a_sentencepiece_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c")
    with pytest.raises(ValueError, match=r"a SentencePiece file, .* use the tokenizer\.model of a Llama 3"):
        dl.load_tokenizer(tmp_path)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_none_at_all_is_told(tmp_path, path):
    with pytest.raises(ValueError, match=r"no tokenizer\.model in"):
        dl.load_tokenizer(tmp_path / path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    save_huggingface(dl.Transformer(shrink("llama3-8b")), tmp_path)
    shutil.copy(TINY, tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match=r"4096 tokens, but the model beside it has an embedding of 320"):
        dl.load_tokenizer(tmp_path)


def test_metas_params_json_is_compared_too(tmp_path):
    shutil.copy(TINY, tmp_path / "tokenizer.model")
    params = {"dim": 64, "n_layers": 1, "n_heads": 4, "vocab_size": 128256, "multiple_of": 16, "norm_eps": 1e-5}
    (tmp_path / "params.json").write_text(json.dumps(params))
    with pytest.raises(ValueError, match="an embedding of 128256"):
        dl.load_tokenizer(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(params | {"vocab_size": -1}))
    assert dl.load_tokenizer(tmp_path).n_vocab == 4096
