"""Where a checkpoint's tokenizer is found, and what is said when it is not."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from conftest import shrink

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.tokenizers.find import MAX_UNNAMED

TINY = checkpoint_path("tiny") / "tokenizer.model"


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


def test_a_damaged_sentencepiece_file_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\n\x0c")
    with pytest.raises(ValueError, match=r"tokenizer\.model is damaged or no SentencePiece model"):
        dl.load_tokenizer(tmp_path)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_none_at_all_is_told(tmp_path, path):
    with pytest.raises(ValueError, match=r"no tokenizer\.model or tokenizer\.json in"):
        dl.load_tokenizer(tmp_path / path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match=r"no tokenizer\.model or tokenizer\.json in"):
        dl.load_tokenizer(tmp_path)


def test_a_name_that_no_file_can_have_is_told():
    with pytest.raises(ValueError, match=r"cannot look for the tokenizer of x.*: File name too long"):
        dl.load_tokenizer("x" * 5000)


def checkpoint(folder: Path, rows: int, added: list | None = None, tokenizer: Path | None = TINY) -> Path:
    """A directory with tiny's tokenizer, the configuration of a model of `rows` tokens and a tokenizer.json."""
    config = json.loads((TINY.parent / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    if tokenizer:
        shutil.copy(tokenizer, folder / "tokenizer.model")
    if added is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    return folder


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    save_huggingface(dl.Transformer(shrink("llama3-8b")), tmp_path)
    shutil.copy(TINY, tmp_path / "tokenizer.model")
    words = r"4096 tokens, but the model in .* has an embedding of 320: .* give the tokenizer that"
    with pytest.raises(ValueError, match=words):
        dl.load_tokenizer(tmp_path)


def test_added_tokens_have_their_names_from_tokenizer_json(tmp_path):
    """The oracle is the library that writes these files: the same ids decode to the same names."""
    words = {f"w{i}": i for i in range(4096)}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    theirs.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    theirs.add_tokens(["[PAD]", "größer 🦙"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours, tiny = dl.load_tokenizer(checkpoint(tmp_path, rows=4104)), dl.load_tokenizer("tiny")
    assert ours.n_vocab == 4104
    assert [ours.decode([i]) for i in range(4096, 4100)] == [theirs.id_to_token(i) for i in range(4096, 4100)]
    assert [ours.decode([i]) for i in range(4100, 4104)] == [f"<|added_token_{i}|>" for i in range(4100, 4104)]
    assert ours.special_ids["<|im_end|>"] == 4097 == theirs.token_to_id("<|im_end|>")
    assert all(ours.token_bytes(i) == tiny.token_bytes(i) for i in range(4096))
    assert ours.encode("a king [PAD]<|im_end|>") == tiny.encode("a king [PAD]<|im_end|>")


def test_every_row_of_a_padded_embedding_decodes(tmp_path):
    """Catches an answer that breaks off with an error at the first id beyond the tokenizer's own."""
    tokenizer = dl.load_tokenizer(checkpoint(tmp_path, rows=4096 + MAX_UNNAMED))
    ids = range(4090, 4096 + MAX_UNNAMED)
    assert "".join(tokenizer.decode_stream(ids)).endswith("<|added_token_5118|><|added_token_5119|>")
    with pytest.raises(ValueError, match="token id 5120 is outside"):
        tokenizer.decode([5120])


def test_llama_3_with_eight_more_rows(tmp_path):
    package = Path(importlib.util.find_spec("llama_models").submodule_search_locations[0])
    llama3 = package / "llama3" / "tokenizer.model"
    tokenizer = dl.load_tokenizer(checkpoint(tmp_path, 128_264, [{"id": 128_256, "content": "<pad>"}], llama3))
    assert tokenizer.n_vocab == 128_264
    assert tokenizer.decode([9906, 128_256, 128_263]) == "Hello<pad><|added_token_128263|>"


def test_the_model_may_be_elsewhere_than_its_tokenizer(tmp_path):
    added = [{"id": 4096, "content": "<pad>"}]
    directory = checkpoint(tmp_path, rows=4104, added=added, tokenizer=None)
    assert dl.load_tokenizer("tiny").n_vocab == 4096
    assert dl.load_tokenizer("tiny", checkpoint=directory).decode([4096]) == "<pad>"
    assert dl.load_tokenizer("tiny", checkpoint="tiny").n_vocab == 4096
    with pytest.raises(ValueError, match=r"has 128256 tokens, but the model in .* has an embedding of 4104"):
        dl.load_tokenizer("llama3", checkpoint=directory)


@pytest.mark.parametrize(
    ("rows", "n_named"), [(4096 + MAX_UNNAMED + 1, 0), (128_256, 3), (2**28, 0), (9000, 3000)], ids=str
)
def test_an_embedding_far_larger_than_the_vocabulary_is_of_another_model(tmp_path, rows, n_named):
    added = [{"id": 4096 + i, "content": f"<{i}>"} for i in range(n_named)]
    words = f"has 4096 tokens, but the model in .* has an embedding of {rows}, of which its tokenizer.json names"
    with pytest.raises(ValueError, match=f"{words} {n_named} more: they belong to different models"):
        dl.load_tokenizer(checkpoint(tmp_path, rows, added))


def test_any_number_of_named_tokens_is_accepted(tmp_path):
    """Models that speak add tens of thousands of tokens for sounds, and name each."""
    added = [{"id": 4096 + i, "content": f"<sound_{i}>"} for i in range(30_000)]
    assert dl.load_tokenizer(checkpoint(tmp_path, 34_096, added)).decode([34_095]) == "<sound_29999>"


def test_a_name_that_is_taken_gives_way(tmp_path):
    """Catches a repeated name that would leave an id without a text."""
    names = {4096: "<|eot_id|>", 4097: "<a>", 4098: "<a>", 5000: "<far>", 5: "<b>"}
    added = [{"id": token, "content": name} for token, name in names.items()]
    tokenizer = dl.load_tokenizer(checkpoint(tmp_path, 4099, added))
    assert tokenizer.decode([4096, 4097, 4098]) == "<|added_token_4096|><|added_token_4097|><a>"
    assert tokenizer.special_ids["<|eot_id|>"] == dl.load_tokenizer("tiny").special_ids["<|eot_id|>"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"added_tokens": 5}',
        b'{"added_tokens": [5]}',
        b'{"added_tokens": [{"id": 4096}]}',
        b'{"added_tokens": [{"id": "4096", "content": "<a>"}]}',
        b'{"added_tokens": [{"id": 4096.0, "content": "<a>"}]}',
        b'{"added_tokens": [{"id": true, "content": "<a>"}]}',
        b'{"added_tokens": [{"id": 4096, "content": 5}]}',
        b'{"added_tokens": [{"id": 4096, "content": ""}]}',
        b'{"added_tokens": [{"id": 4096, "content": "\\ud800"}]}',
        b'{"added_tokens": [{"id": 4096, "content": "a\\ud800"}]}',
        b'{"added_tokens": [], "added_tokens": [{"id": 4096, "content": "<a>"}]}',
        b'{"added_tokens": ' + b"[" * 100_000,
        b'{"added_tokens": [{"id": ' + b"9" * 5000 + b', "content": "<a>"}]}',
    ],
    ids=range(18),
)
def test_a_damaged_tokenizer_json_is_told(tmp_path, content):
    folder = checkpoint(tmp_path, rows=4104)
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"tokenizer\.json (is damaged: expected added_tokens .*, found|is|holds|sets) "
    ) as error:
        dl.load_tokenizer(folder)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_metas_params_json_is_compared_too(tmp_path):
    shutil.copy(TINY, tmp_path / "tokenizer.model")
    params = {"dim": 64, "n_layers": 1, "n_heads": 4, "vocab_size": 128256, "multiple_of": 16, "norm_eps": 1e-5}
    (tmp_path / "params.json").write_text(json.dumps(params))
    with pytest.raises(ValueError, match="an embedding of 128256"):
        dl.load_tokenizer(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(params | {"vocab_size": -1}))
    assert dl.load_tokenizer(tmp_path).n_vocab == 4096
