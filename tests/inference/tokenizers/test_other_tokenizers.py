"""Tokenizers of other models: SentencePiece's files, tokenizer.json, and both inside GGUF files."""

import json
import shutil
from importlib import resources
from pathlib import Path

import gguf
import pytest
import sentencepiece
import tokenizers
from conftest import shrink
from texts import hard_texts
from transformers.convert_slow_tokenizer import TikTokenConverter

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.tokenizers.library import byte_characters

TINY = checkpoint_path("tiny") / "tokenizer.model"
TEXTS = hard_texts(600)
MISTRAL = resources.files("mistral_common") / "data" / "tokenizer.model.v1"


@pytest.fixture(scope="module")
def mistral():
    """Mistral's own SentencePiece model: 32,000 pieces, as Llama 2 has them."""
    return sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL))


@pytest.fixture
def mistral_folder(tmp_path):
    shutil.copy(str(MISTRAL), tmp_path / "tokenizer.model")
    return tmp_path


def write_tokenizer(path, add) -> None:
    """A GGUF file with a tokenizer and one tensor."""
    writer = gguf.GGUFWriter(path, "llama")
    add(writer)
    writer.add_tensor("token_embd.weight", __import__("numpy").zeros((2, 32), "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_sentencepiece_ids_are_those_of_the_library(mistral, mistral_folder):
    ours = dl.load_tokenizer(mistral_folder)
    assert (ours.n_vocab, ours.bos_id, ours.eos_id, ours.stop_ids) == (32_000, 1, 2, (2,))
    for text in TEXTS:
        assert ours.encode(text) == mistral.encode(text), text
        assert ours.decode(ours.encode(text)) == mistral.decode(mistral.encode(text)), text
    assert ours.encode("a king", bos=True, eos=True) == [1, *mistral.encode("a king"), 2]
    assert "".join(ours.decode_stream(mistral.encode("größer 🦊"))) == " größer 🦊"


def test_sentencepiece_in_a_gguf_file_is_the_same_tokenizer(mistral, tmp_path):
    """The oracle reads Mistral's file; ours has only the pieces, scores and types that llama.cpp would keep."""
    ids = range(mistral.get_piece_size())
    unknown, control, byte = mistral.is_unknown, mistral.is_control, mistral.is_byte
    types = [2 if unknown(i) else 3 if control(i) else 6 if byte(i) else 1 for i in ids]

    def add(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list([mistral.id_to_piece(i) for i in ids])
        writer.add_token_scores([mistral.get_score(i) for i in ids])
        writer.add_token_types(types)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    write_tokenizer(tmp_path / "m.gguf", add)
    ours = dl.load_tokenizer(tmp_path / "m.gguf")
    for text in TEXTS:
        # Mistral's own file folds some characters by NFKC first; GGUF files keep no such rules.
        if mistral.decode(mistral.encode(text)) == text:
            assert ours.encode(text) == mistral.encode(text), text
    assert ours.encode("a", bos=True)[0] == 1


def test_llama_3s_bpe_in_a_gguf_file_is_the_same_tokenizer(tmp_path, monkeypatch):
    """The merges are those that transformers finds in a file of ranks."""
    # They are read by tiktoken: 0.9 asks for the package blobfile, and its cache may hold an older file.
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    monkeypatch.setattr("tiktoken.load.read_file", lambda path: Path(path).read_bytes())
    tiny = dl.load_tokenizer("tiny")
    vocabulary, merges = TikTokenConverter(str(TINY)).extract_vocab_merges_from_model(str(TINY))
    tokens = [*sorted(vocabulary, key=vocabulary.get), *tiny.special_ids]

    def add(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(tokens)
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_token_types([1] * len(vocabulary) + [3] * len(tiny.special_ids))
        writer.add_bos_token_id(tiny.bos_id)
        writer.add_eos_token_id(tiny.special_ids["<|eot_id|>"])

    write_tokenizer(tmp_path / "t.gguf", add)
    ours = dl.load_tokenizer(tmp_path / "t.gguf")
    assert ours.stop_ids == tuple(sorted(tiny.stop_ids))
    assert ours.special_ids == tiny.special_ids
    for text in TEXTS:
        assert ours.encode(text, bos=True) == tiny.encode(text, bos=True), text
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pre": "qwen2"}, r"cuts texts by the rule 'qwen2' .* known are smollm, gpt-2, llama-bpe"),
        ({"pre": None}, "cuts texts by the rule null"),
        ({"model": "bert"}, "a tokenizer of the kind 'bert'; 'gpt2' and 'llama' are known here"),
        ({"types": [1, 1, 9]}, "not each of its tokens has a type of 1 to 6"),
        ({"types": [1, 1]}, "not each of its tokens has a type of 1 to 6"),
        ({"merges": ["a c"]}, "the merge .* makes no token"),
        ({"merges": ["ab"]}, "the merge .* makes no token"),
        ({"tokens": ["a", "a", "ab"]}, "some of its 3 tokens are the same"),
        ({"eos": 3}, "eos_token_id is 3, and there are 3 tokens"),
        ({"template": "x" * 70_000}, "the chat template in .* has 70,000 bytes"),
        ({"model": "llama"}, "not every token has a score"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_tokenizer_that_is_not_known_or_damaged_is_refused(tmp_path, change, words):
    given = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab"], "types": [1, 1, 1], "merges": ["a b"]}
    given |= {"eos": 2, "template": "{{ 1 }}"} | change

    def add(writer):
        writer.add_tokenizer_model(given["model"])
        if given["pre"]:
            writer.add_tokenizer_pre(given["pre"])
        writer.add_token_list(given["tokens"])
        writer.add_token_types(given["types"])
        writer.add_token_merges(given["merges"])
        writer.add_eos_token_id(given["eos"])
        writer.add_chat_template(given["template"])

    write_tokenizer(tmp_path / "x.gguf", add)
    with pytest.raises(ValueError, match=words):
        dl.load_tokenizer(tmp_path / "x.gguf")


@pytest.fixture
def json_folder(tmp_path):
    """A checkpoint whose tokenizer.json the library has trained: byte-level, as Llama 3's and SmolLM2's are."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    all_bytes = {"initial_alphabet": list(byte_characters())}
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, **all_bytes, special_tokens=["<s>"])
    library.train_from_iterator(TEXTS, trainer)
    library.add_special_tokens(["<|eot_id|>", "<|end|>"])
    library.add_tokens(["[PAD]"])
    library.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path, library


def test_a_tokenizer_json_gives_the_ids_of_the_library(json_folder):
    folder, library = json_folder
    ours = dl.load_tokenizer(folder)
    special = tokenizers.Tokenizer.from_str(library.to_str())
    special.encode_special_tokens = True
    assert (ours.n_vocab, ours.bos_id, ours.adds_bos) == (403, 0, True)
    for text in TEXTS:
        assert ours.encode(text) == special.encode(text, add_special_tokens=False).ids, text
        assert ours.decode(ours.encode(text)) == text
    assert ours.encode("a", bos=True) == special.encode("a").ids
    assert ours.encode("[PAD]") == [402], "an added token that is not special is a word of the text"
    assert 401 not in ours.encode("<|end|>"), "a special one is none"


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, {400}),
        ({"generation_config.json": {"eos_token_id": [401, 0]}}, {400, 401, 0}),
        ({"generation_config.json": {"eos_token_id": 401}}, {400, 401}),
        ({"config.json": {"eos_token_id": 401}}, {400, 401}),
        ({"config.json": {"eos_token_id": 0}, "generation_config.json": {"eos_token_id": 401}}, {400, 401}),
        ({"tokenizer_config.json": {"eos_token": "<|end|>"}}, {400, 401}),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|end|>"}}}, {400, 401}),
    ],
)
def test_stop_ids_come_from_the_files_and_from_known_names(json_folder, files, stops):
    """Catches the instruct model that never stops: the files of Llama 3 name only one of its two."""
    folder, _ = json_folder
    for name, content in files.items():
        if name == "config.json":
            save_huggingface(dl.Transformer(shrink("llama3-8b")), folder)
            content = json.loads((folder / name).read_text()) | {"vocab_size": 403} | content
        (folder / name).write_text(json.dumps(content))
    assert set(dl.load_tokenizer(folder).stop_ids) == stops


@pytest.mark.parametrize("stated", ["x", [1, "x"], -1, 1.5, {}, True])
def test_a_stop_id_that_is_none_is_refused(json_folder, stated):
    folder, _ = json_folder
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    with pytest.raises(ValueError, match=r"generation_config\.json sets eos_token_id to .*, expected an id"):
        dl.load_tokenizer(folder)


def test_a_template_is_taken_from_the_first_place_that_has_one(json_folder):
    folder, _ = json_folder
    places = {"tokenizer_config.json": "a", "chat_template.json": "b", "chat_template.jinja": "c"}
    for name, letter in places.items():
        text = letter if name.endswith(".jinja") else json.dumps({"chat_template": letter})
        (folder / name).write_text(text)
        assert dl.load_tokenizer(folder).template.text == letter
    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    for name in ("chat_template.json", "chat_template.jinja"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert dl.load_tokenizer(folder).template.text == "d"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"model": {"type": "BPE"}}',
        '{"a": ' * 9999,
        '{"added_tokens": 5, "model": {}}',
    ],
)
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json") as caught:
        dl.load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 400


def test_a_way_of_decoding_that_is_not_known_is_refused(json_folder):
    folder, library = json_folder
    library.decoder = tokenizers.decoders.WordPiece()
    library.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="ByteLevel, ByteFallback and Metaspace are known here"):
        dl.load_tokenizer(folder)


def test_pieces_in_a_tokenizer_json_decode_as_bytes(tmp_path, mistral):
    """As Hugging Face stores Llama 2's: byte-pair encoding over SentencePiece's pieces."""
    pieces = [mistral.id_to_piece(i) for i in range(mistral.get_piece_size())]
    model = tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True)
    library = tokenizers.Tokenizer(model)
    library.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    ours = dl.load_tokenizer(tmp_path)
    assert ours.token_bytes(mistral.piece_to_id("<0xF0>")) == b"\xf0"
    assert ours.decode(mistral.encode("größer 🦊")) == " größer 🦊"


def test_the_packages_of_the_extra_are_asked_for_by_name(tmp_path, monkeypatch, json_folder):
    folder, _ = json_folder
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"needs the package tokenizers: pip install 'decoding-llama3\[real\]'"):
        dl.load_tokenizer(folder)
