"""Llama 3's tokenizer.json through tiktoken: the ids are those of the library that reads all others."""

import json
import random
import sys
from importlib import resources
from pathlib import Path

import pytest
import tokenizers
from texts import hard_texts
from tokenizers import decoders, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import TikTokenConverter

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.tokenizers.library import LibraryTokenizer
from decoding_llama3.inference.tokenizers.llama3_json import llama3_json
from decoding_llama3.inference.tokenizers.ranks import RankTokenizer

META = Path(str(resources.files("llama_models") / "llama3" / "tokenizer.model"))
TINY = checkpoint_path("tiny") / "tokenizer.model"
PATTERN = (  # as Hugging Face's files of Llama 3 write it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def library_of():
    """A tokenizer of the library with the vocabulary of a file of ranks, as transformers converts it."""
    patch, made = pytest.MonkeyPatch(), {}
    patch.setenv("TIKTOKEN_CACHE_DIR", "")
    patch.setattr("tiktoken.load.read_file", lambda path: Path(path).read_bytes())

    def make(file: Path) -> tokenizers.Tokenizer:
        if file not in made:
            vocabulary, merges = TikTokenConverter(str(file)).extract_vocab_merges_from_model(str(file))
            library = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=True))
            words = pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior="isolated")
            by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            library.pre_tokenizer = pre_tokenizers.Sequence([words, by_byte])
            library.decoder = decoders.ByteLevel()
            library.add_special_tokens([*dl.Tokenizer(file).special_ids])
            bos = "<|begin_of_text|>"
            template = processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, library.token_to_id(bos))]
            )
            library.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
            made[file] = library.to_str()
        return tokenizers.Tokenizer.from_str(made[file])

    yield make
    patch.undo()


def runs() -> list[str]:
    """Where one token can be cut in several ways that overlap, the order of merges might matter."""
    signs = [" ", "=", "-", "\n", "a", "ab", "ha", " \n", "\t", "*", "_", "字", "ः", "0", "./"]
    return [sign * n for sign in signs for n in (2, 3, 5, 7, 8, 15, 16, 17, 31, 47, 64, 100, 129)]


def same_ids(folder: Path, library: tokenizers.Tokenizer, texts: list[str]) -> RankTokenizer:
    ours = dl.load_tokenizer(folder)
    assert isinstance(ours, RankTokenizer)
    library.encode_special_tokens = True
    expected = library.encode_batch(texts, add_special_tokens=False)
    for text, theirs in zip(texts, expected, strict=True):
        assert ours.encode(text) == theirs.ids, text
    return ours


@pytest.mark.parametrize("file", [TINY, pytest.param(META, marks=pytest.mark.long)], ids=["tiny", "llama3"])
def test_ids_are_those_of_the_library_and_of_metas_file(tmp_path, library_of, file):
    library, metas = library_of(file), dl.Tokenizer(file)
    library.save(str(tmp_path / "tokenizer.json"))
    texts = [*hard_texts(2000), *runs(), *map("".join, words())]
    ours = same_ids(tmp_path, library, texts)
    assert [ours.encode(text, bos=True) for text in texts] == [metas.encode(text, bos=True) for text in texts]
    assert (ours.n_vocab, ours.special_ids, ours.bos_id) == (metas.n_vocab, metas.special_ids, metas.bos_id)
    assert [ours.token_bytes(i) for i in range(ours.n_vocab)] == [
        metas.token_bytes(i) for i in range(ours.n_vocab)
    ]
    assert ours.encode("half a pair \ud83e, then") == metas.encode("half a pair \ud83e, then")


def words() -> list[list[str]]:
    """Invented words of invented letters, where merges compete."""
    draw = random.Random(5)
    return [draw.choices("etaoinshrdlu '", k=draw.randrange(1, 60)) for _ in range(500)]


def test_it_needs_no_other_package(tmp_path, library_of, monkeypatch):
    library_of(TINY).save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert dl.load_tokenizer(tmp_path).encode("a king") == dl.load_tokenizer("tiny").encode("a king")


def test_merges_that_are_written_as_texts_are_the_same(tmp_path, library_of):
    """As versions of the library before 0.20 wrote them."""
    content = json.loads(library_of(TINY).to_str())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    same_ids(tmp_path, library_of(TINY), hard_texts(300))


def test_what_we_write_is_what_the_library_reads(tmp_path, library_of):
    tiny = dl.load_tokenizer("tiny")
    ranks = {tiny.token_bytes(i): i for i in range(tiny.bos_id)}
    (tmp_path / "tokenizer.json").write_text(llama3_json(ranks, tiny.special_ids, "<|begin_of_text|>"))
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = library_of(TINY)
    assert written.get_vocab() == theirs.get_vocab()
    texts = [*hard_texts(500), *runs()]
    assert [e.ids for e in written.encode_batch(texts)] == [e.ids for e in theirs.encode_batch(texts)]
    assert [written.decode(e.ids) for e in written.encode_batch(texts)] == [
        theirs.decode(e.ids) for e in theirs.encode_batch(texts)
    ]
    same_ids(tmp_path, written, texts)


def change(content: dict, what: str) -> None:
    model, pre = content["model"], content["pre_tokenizer"]["pretokenizers"]
    if what == "the pattern of GPT-4":
        pre[0]["pattern"]["Regex"] = PATTERN.replace(r"\s*[\r\n]+", r"\s*[\r\n]")
    elif what == "digits one by one":
        pre.insert(0, {"type": "Digits", "individual_digits": True})
    elif what == "merges used inside words that are tokens":
        model["ignore_merges"] = False
    elif what == "a merge is missing":
        del model["merges"][500]
    elif what == "merges in another order":
        model["merges"][10], model["merges"][2000] = model["merges"][2000], model["merges"][10]
    elif what == "a normaliser":
        content["normalizer"] = {"type": "Lowercase"}
    elif what == "an added word":
        content["added_tokens"][5]["special"] = False
    elif what == "a special token after the text":
        single = content["post_processor"]["processors"][1]["single"]
        single.append(single[0])
    elif what == "dropout":
        model["dropout"] = 0.0


@pytest.mark.parametrize(
    "what",
    [
        "the pattern of GPT-4",
        "digits one by one",
        "merges used inside words that are tokens",
        "a merge is missing",
        "merges in another order",
        "a normaliser",
        "an added word",
        "a special token after the text",
        "dropout",
    ],
)
def test_everything_else_stays_with_the_library(tmp_path, library_of, what):
    content = json.loads(library_of(TINY).to_str())
    change(content, what)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours = dl.load_tokenizer(tmp_path)
    assert isinstance(ours, LibraryTokenizer)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    theirs.encode_special_tokens = True
    for text in ("The king's 12345 GOLDEN\n\n\n apples <|eot_id|>", "a" * 40):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_a_file_that_asks_to_cut_texts_or_to_fill_them_up_is_not_obeyed(tmp_path, library_of):
    """Catches the end of a long text lost in silence."""
    library = library_of(TINY)
    content = json.loads(library.to_str()) | {"normalizer": {"type": "NFC"}}
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours = dl.load_tokenizer(tmp_path)
    text = "Once upon a time there was a king, who had a golden apple."
    assert ours.decode(ours.encode(text)) == text
    assert ours.encode("a", bos=True) == [ours.bos_id, *dl.load_tokenizer("tiny").encode("a")]
