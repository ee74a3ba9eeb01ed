"""What the exporter writes of a tokenizer: we and transformers read the same ids from it as from the source."""

import json
import shutil
import warnings
from importlib import resources
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from conftest import randomize
from folders import TOKENS
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.tokenizers.library import byte_characters
from decoding_llama3.inference.tokenizers.llama3_json import merges_of

TINY = checkpoint_path("tiny") / "tokenizer.model"
META = Path(str(resources.files("llama_models") / "llama3" / "tokenizer.model"))
PIECES = Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1"))
CHARS = {byte: char for char, byte in byte_characters().items()}
TEXTS = [
    "The king's golden apple, 12345 of them.\n\n\tÄpfel und  Könige",
    "  two spaces first, 国王 🦊 and a half\u200b",
    "",
    "a" * 50 + " = [0, 1];\r\n",
]
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " Who are you? "},
    {"role": "assistant", "content": "A king."},
    {"role": "user", "content": "And I?"},
]
TEMPLATE = "{% for m in messages %}{{ bos_token ~ m.role ~ ': ' ~ m.content ~ eos_token }}{% endfor %}"


def model_of(rows: int) -> dl.Transformer:
    config = dl.LlamaConfig(dim=32, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=48, vocab_size=rows)
    return randomize(dl.Transformer(config))


def meta(folder: Path, vocabulary: Path = TINY) -> Path:
    """Meta's layout of a Llama 3; its chat format is known, its template is ours."""
    params = {"dim": 32, "n_layers": 1, "n_heads": 2, "multiple_of": 16, "norm_eps": 1e-5}
    rows = dl.Tokenizer(vocabulary).n_vocab
    (folder / "params.json").write_text(json.dumps(params | {"vocab_size": rows, "rope_theta": 500_000.0}))
    shutil.copy(vocabulary, folder / "tokenizer.model")
    return folder


def llama2(folder: Path) -> Path:
    """Meta's layout of a Llama 2."""
    params = {"dim": 32, "n_layers": 1, "n_heads": 2, "multiple_of": 16, "norm_eps": 1e-5, "vocab_size": -1}
    (folder / "params.json").write_text(json.dumps(params))
    shutil.copy(PIECES, folder / "tokenizer.model")
    return folder


def with_template(folder: Path) -> Path:
    """Hugging Face's layout: a tokenizer.model of Llama 3, a template, three stop ids, and rows with names."""
    save_huggingface(model_of(4100), folder)
    shutil.copy(TINY, folder)
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 4096, "content": "<|im_end|>"}]}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4096, 17]}))
    return folder


def library(folder: Path) -> Path:
    """Byte-level BPE as GPT-2 cuts texts, which only the library runs; texts begin with <s>."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=list(byte_characters()), special_tokens=["<s>", "</s>"]
    )
    made.train_from_iterator(TEXTS * 5, trainer)
    made.add_tokens(["[WORD]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def gguf_file(folder: Path, kind: str, pre: str | None, add) -> Path:
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_tokenizer_model(kind)
    if pre:
        writer.add_tokenizer_pre(pre)
    add(writer)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m.gguf"


def gguf_bytes(folder: Path, pre: str = "smollm", adds_bos: bool = False) -> Path:
    tiny = dl.load_tokenizer("tiny")
    ranks = {tiny.token_bytes(i): i for i in range(tiny.bos_id)}
    tokens = [_written(tiny, i) for i in range(tiny.n_vocab)]

    def add(writer):
        writer.add_token_list(tokens)
        writer.add_token_merges([" ".join(merge) for merge in merges_of(ranks)])
        writer.add_token_types([1] * tiny.bos_id + [3] * 256)
        writer.add_bos_token_id(tiny.bos_id)
        writer.add_eos_token_id(tiny.special_ids["<|eot_id|>"])
        writer.add_add_bos_token(adds_bos)

    return gguf_file(folder, "gpt2", pre, add)


def _written(tokenizer, token: int) -> str:
    content = tokenizer.token_bytes(token)
    return content.decode() if token >= tokenizer.bos_id else "".join(CHARS[byte] for byte in content)


def gguf_llama3(folder: Path) -> Path:
    return gguf_bytes(folder, "llama-bpe", True)


def gguf_begins(folder: Path) -> Path:
    return gguf_bytes(folder, "gpt-2", True)


def gguf_pieces(folder: Path, adds_bos: bool = True) -> Path:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(PIECES))
    ids = range(pieces.get_piece_size())
    unknown, control, byte = pieces.is_unknown, pieces.is_control, pieces.is_byte

    def add(writer):
        writer.add_token_list([pieces.id_to_piece(i) for i in ids])
        writer.add_token_scores([pieces.get_score(i) for i in ids])
        writer.add_token_types([2 if unknown(i) else 3 if control(i) else 6 if byte(i) else 1 for i in ids])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(adds_bos)

    return gguf_file(folder, "llama", None, add)


def gguf_pieces_without_bos(folder: Path) -> Path:
    return gguf_pieces(folder, adds_bos=False)


SOURCES = [
    meta,
    llama2,
    with_template,
    library,
    gguf_bytes,
    gguf_llama3,
    gguf_begins,
    gguf_pieces,
    gguf_pieces_without_bos,
]


def exported(source, tmp_path: Path, spare: int = 0):
    """The tokenizer of a source, what we read of its export, and the folder of that."""
    (tmp_path / "source").mkdir()
    ours = dl.load_tokenizer(source(tmp_path / "source"))
    save_huggingface(model_of(ours.n_vocab + spare), tmp_path / "out", tokenizer=ours)
    return ours, dl.load_tokenizer(tmp_path / "out"), tmp_path / "out"


@pytest.mark.parametrize("source", SOURCES)
def test_we_read_the_same_tokenizer_again(tmp_path, source):
    ours, again, _ = exported(source, tmp_path)
    for text in TEXTS:
        assert again.encode(text, bos=True, eos=True) == ours.encode(text, bos=True, eos=True)
    for name in ("n_vocab", "bos_id", "eos_id", "stop_ids", "special_ids"):
        assert getattr(again, name) == getattr(ours, name), name
    assert all(again.token_bytes(i) == ours.token_bytes(i) for i in range(ours.n_vocab))
    assert again.encode_chat(TALK) == ours.encode_chat(TALK)


@pytest.mark.parametrize("source", SOURCES)
def test_transformers_reads_the_same_ids(tmp_path, source):
    ours, _, folder = exported(source, tmp_path)
    if in_pieces := (folder / "tokenizer.model").exists():
        pytest.importorskip("google.protobuf", reason="transformers reads no tokenizer.model without protobuf")
    theirs = AutoTokenizer.from_pretrained(folder)
    # What transformers makes of any SentencePiece file differs from SentencePiece on runs of blanks.
    for text in ["The king's golden apple, 12345 of them.", "naïve: 国王 🦊"] if in_pieces else TEXTS:
        assert theirs(text).input_ids == ours.encode(text, bos=True), text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    generation = GenerationConfig.from_pretrained(folder)
    stops = generation.eos_token_id
    assert sorted(stops if isinstance(stops, list) else [stops]) == list(ours.stop_ids)
    assert generation.bos_token_id == ours.bos_id
    text = theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert ours.template._render({"messages": TALK, **_names(ours)}) == text
    if not in_pieces:  # where a segment of text begins with a space, too
        ids = theirs.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
        assert list(ids) == ours.encode_chat(TALK)


def _names(tokenizer) -> dict[str, str]:
    return {f"{k}_token": tokenizer.decode([getattr(tokenizer, f"{k}_id")]) for k in ("bos", "eos")}


def test_a_model_of_theirs_stops_where_ours_does(tmp_path):
    ours, _, folder = exported(with_template, tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(folder).generation_config
    assert theirs.eos_token_id == list(ours.stop_ids)
    assert {17, 4096} < {*ours.stop_ids}


def test_names_that_fill_an_embedding_up_are_kept(tmp_path):
    """Of a Llama 2 with [PAD], as many fine-tunes have it, and of tokens that nothing names."""
    folder = llama2(tmp_path)
    (folder / "params.json").unlink()
    save_huggingface(model_of(32_008), folder)
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 32_000, "content": "[PAD]"}]}))
    ours = dl.load_tokenizer(folder)
    save_huggingface(model_of(32_008), tmp_path / "out", tokenizer=ours)
    again = dl.load_tokenizer(tmp_path / "out")
    assert again.decode([32_000, 32_007]) == ours.decode([32_000, 32_007]) == "[PAD]<|added_token_32007|>"


def test_without_a_template_none_is_made_up(tmp_path):
    save_huggingface(model_of(4096), tmp_path / "base")
    shutil.copy(TINY, tmp_path / "base")
    ours = dl.load_tokenizer(tmp_path / "base")
    save_huggingface(model_of(4096), tmp_path / "out", tokenizer=ours)
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    assert dl.load_tokenizer(tmp_path / "out").encode_chat(TALK) == ours.encode_chat(TALK)


def test_a_folder_is_written_again_with_the_same_tokenizer_and_no_other(tmp_path):
    ours = dl.load_tokenizer("tiny")
    save_huggingface(model_of(4096), tmp_path, tokenizer=ours)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_huggingface(model_of(4096), tmp_path, tokenizer=ours)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    ours.stop_ids = (17,)
    with pytest.raises(ValueError, match=r"holds 'generation_config\.json', with which another model"):
        save_huggingface(model_of(4096), tmp_path, tokenizer=ours)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"holds 'tokenizer\.model', with which another"):
        save_huggingface(model_of(4096), tmp_path, tokenizer=dl.load_tokenizer("tiny"))


def test_a_tokenizer_of_another_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="has 4096 tokens, but the model has 320 rows for them"):
        save_huggingface(model_of(320), tmp_path / "out", tokenizer=dl.load_tokenizer("tiny"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_the_command_exports_a_checkpoint_whole(tmp_path, dtype):
    out, options = tmp_path / "out", ["--dtype", dtype] if dtype else []
    result = CliRunner().invoke(app, ["export", "tiny", str(out), *options])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}\n"
    model, again = (dl.load_model(path, dtype=torch.float32) for path in ("tiny", out))
    assert again.config == model.config
    assert torch.equal(again(TOKENS), model(TOKENS))
    stored = json.loads((out / "config.json").read_text())
    assert stored["dtype"] == (dtype or "bfloat16")
    assert stored["eos_token_id"] == list(dl.load_tokenizer("tiny").stop_ids)
    assert f"{model.config.n_params:,} weights in" in result.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoTokenizer.from_pretrained(out)
    assert theirs("Once upon a time").input_ids == dl.load_tokenizer("tiny").encode("Once upon a time", bos=True)


def test_the_command_refuses_before_it_reads_weights(tmp_path):
    (tmp_path / "x").write_text("mine")
    for target, words in ((tmp_path, "is not empty"), (tmp_path / "x", "cannot be a folder")):
        result = CliRunner().invoke(app, ["export", "tiny", str(target)])
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
    assert (tmp_path / "x").read_text() == "mine"
