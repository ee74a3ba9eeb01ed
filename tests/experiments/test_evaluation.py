"""The measurements: each against a count made another way, on texts small enough to count."""

import base64
import dataclasses
import json
import lzma
import math
import random
import shutil
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import randomize
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli.commands import app
from decoding_llama3.experiments.corpus import Corpus
from decoding_llama3.experiments.evaluation import (
    EvaluationSettings,
    compressed_bits_per_byte,
    continue_prompts,
    count_listed,
    evaluate,
    memorised,
    overlap,
    sample_tales,
    words_in,
)
from decoding_llama3.experiments.evaluation.ngram import ngram_bits_per_byte, ngram_probabilities
from decoding_llama3.experiments.preparation import listed_words
from decoding_llama3.experiments.training import bits_per_byte
from decoding_llama3.inference.checkpoint.export import save_huggingface

WORDS = ["king", "queen", "bird", "golden", "apple", "said", "went", "the", "a", "wood", "and", "old"]
CONFIG = dl.LlamaConfig(
    dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=518, max_seq_len=160
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # a step of so small a model is shorter than the wait of two threads for each other


MERGED = (b"th", b"the", b" the", b"an", b"and", b" and")


@pytest.fixture
def tokenizer(tmp_path):
    """One token a byte, but for ` the` and ` and`: where tokens end is known here."""
    tokens = [*(bytes([byte]) for byte in range(256)), *MERGED]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), i) for i, token in enumerate(tokens)))
    return dl.Tokenizer(path)


@pytest.fixture
def model():
    return randomize(dl.Transformer(CONFIG))


def lines(n: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) + ".\n" for _ in range(n))


# n-grams


def by_the_formula(training: bytes, before: bytes, byte: int, order: int) -> Fraction:
    """p_k(w | h) from lists and exact fractions; `before` is all that stands before w."""
    if order == 0:
        return Fraction(1, 256)
    lower = by_the_formula(training, before, byte, order - 1)
    n = order - 1
    if len(before) < n:
        return lower
    h = before[len(before) - n :]
    followers = [training[i + n] for i in range(len(training) - n) if training[i : i + n] == h]
    if not followers:
        return lower
    kinds = len(set(followers))
    return (followers.count(byte) + kinds * lower) / (len(followers) + kinds)


def test_ngrams_are_those_of_a_plain_count_for_every_order():
    """Catches: the last byte or the first counted wrongly, T mistaken for a count, an order mixed up."""
    draw = random.Random(0)
    training = bytes(draw.choices(b"aab \n", k=400)) + b"aabaabaabaabx"
    text = bytes(draw.choices(b"aab \n", k=60)) + b"aabaabaabx\xffaabaab\x00" + training[100:140]
    found = ngram_probabilities(training, text)
    assert found.shape == (9, len(text))
    for order in range(1, 10):
        expected = [float(by_the_formula(training, text[:i], text[i], order)) for i in range(len(text))]
        np.testing.assert_allclose(found[order - 1], expected, rtol=1e-12)
    assert len({tuple(row) for row in found.tolist()}) == 9  # the text is such that no order equals another


def test_abracadabra_by_hand():
    """a 5, b 2, r 2, c 1, d 1: p(a) = (5 + 5/256) / 16. After a stand b, c, d, b: p(b|a) = (2 + 3 p(b)) / 7."""
    p_a, p_b = 1285 / 4096, 517 / 4096
    p_b_after_a = 9743 / 28672
    assert p_b_after_a == pytest.approx((2 + 3 * p_b) / 7)
    found = ngram_probabilities(b"abracadabra", b"ab", 3)
    np.testing.assert_allclose(found, [[p_a, p_b], [p_a, p_b_after_a], [p_a, p_b_after_a]], rtol=1e-14)
    bits = ngram_bits_per_byte(b"abracadabra", b"ab", 2)
    assert bits == pytest.approx([-math.log2(p_a * p_b) / 2, -math.log2(p_a * p_b_after_a) / 2])


@pytest.mark.parametrize(
    "context", [b"", b"a", b"abracadab", b"racadabra", b"zzzzzzzzz", b"z", b"abra\xff", b"dabra"]
)
def test_the_256_probabilities_sum_to_one_in_seen_and_unseen_contexts(context):
    """`dabra` ends the text: nothing follows it. Catches a mass T(h) that is not what the counts leave."""
    sums = sum(ngram_probabilities(b"abracadabra", context + bytes([w]))[:, -1] for w in range(256))
    np.testing.assert_allclose(sums, np.ones(9), rtol=1e-12)


def test_a_text_shorter_than_the_order_has_probabilities_all_the_same():
    one, long = (ngram_probabilities(b"abracadabra", text) for text in (b"b", b"bra"))
    np.testing.assert_array_equal(one[:, 0], long[:, 0])
    assert (one == one[0]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((b"ab", b"ab", 0), "order of an n-gram is 1 to 9, found 0: give"),
        ((b"ab", b"ab", 10), "order of an n-gram is 1 to 9, found 10"),
        ((b"", b"ab"), "the training text is empty: give"),
        ((b"ab", b""), "the text to measure is empty"),
    ],
)
def test_what_no_ngram_can_be_made_of_is_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        ngram_bits_per_byte(*arguments)


# compressors


def test_compressed_sizes_are_those_of_the_libraries():
    """gzip is raw deflate at level 9 and 18 bytes of frame; xz is preset 9 extreme."""

    def deflated(data):
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        return len(engine.compress(data) + engine.flush()) + 18

    def xz(data):
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    training, text = lines(60, 1).encode(), lines(400, 2).encode()
    found = compressed_bits_per_byte(training, text)
    for name, size in (("gzip", deflated), ("xz", xz)):
        assert found[name]["alone"] * len(text) / 8 == pytest.approx(size(text), rel=1e-12)
        added = size(training + text) - size(training)
        assert found[name]["after_training"] * len(text) / 8 == pytest.approx(added, rel=1e-12)
    with pytest.raises(ValueError, match="the text to compress is empty: give"):
        compressed_bits_per_byte(training, b"")


def test_xz_finds_what_stands_far_back_and_gzip_does_not():
    """Were the dictionary small, or the training text behind the text, nothing would be found."""
    draw = random.Random(3)
    text = draw.randbytes(20_000)
    found = compressed_bits_per_byte(text + draw.randbytes(400_000), text)
    assert found["xz"]["after_training"] < 0.5
    assert found["gzip"]["after_training"] > 7.9


# word sequences


def test_what_a_word_is():
    text = "Don't--said he; 'tis the dogs' 2nd_bone, O'Clock: CAFÉ.\nEnd"
    assert words_in(text) == ["don't", "said", "he", "tis", "the", "dogs", "2nd", "bone", "o'clock", "café", "end"]


def test_overlap_of_hand_made_texts():
    training = {"a.txt": "There, the KING said: 'Go!', and went\nhome to his mother.", "b.txt": "the king said no"}
    found = overlap(["x the king said -- go and went home to HIS cat"], training)
    assert found == {
        "sequences": 4,  # of 11 words
        "in_training": 2,
        "share": 0.5,
        "longest": {"words": 9, "text": "the king said go and went home to his", "file": "a.txt"},
    }
    assert overlap(["the king said no"], training)["longest"]["file"] == "b.txt"


@pytest.mark.parametrize(
    ("texts", "training", "longest"),
    [
        (["a b c d e f g h i"], {"1": "a b c d", "2": "e f g h i"}, 5),
        (["a b c d", "e f g h i"], {"1": "a b c d e f g h i"}, 5),
    ],
)
def test_no_sequence_runs_from_one_text_into_the_next(texts, training, longest):
    found = overlap(texts, training)
    assert (found["in_training"], found["longest"]["words"]) == (0, longest)
    assert found["sequences"] == sum(max(0, len(text.split()) - 7) for text in texts)


def test_texts_may_share_nothing_or_be_short():
    found = overlap(["x", ""], {"a": "b c d"})
    assert found["longest"] == {"words": 0, "text": "", "file": None}
    assert (found["sequences"], found["in_training"], found["share"]) == (0, 0, 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_overlap_is_that_of_sets_of_tuples(seed):
    """Random texts with a passage of random length planted: the longest is found whatever its length."""
    draw = random.Random(seed)
    texts = [draw.choices("abc", k=70), draw.choices("abc", k=50)]
    training = {name: draw.choices("abc", k=300) for name in "xyz"}
    n = draw.randint(9, 40)
    training["y"][100 : 100 + n] = texts[1][5 : 5 + n]

    def sequences(words, length):
        return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]

    def shared(length):
        known = {s for words in training.values() for s in sequences(words, length)}
        return [s for text in texts for s in sequences(text, length) if s in known]

    found = overlap([" ".join(text) for text in texts], {k: " ".join(v) for k, v in training.items()})
    assert (found["sequences"], found["in_training"]) == (63 + 43, len(shared(8)))
    longest = max(length for length in range(1, 60) if shared(length))
    assert found["longest"]["words"] == longest >= n
    assert tuple(found["longest"]["text"].split()) in shared(longest)
    assert found["longest"]["text"] in " ".join(training[found["longest"]["file"]])


# tales


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_tale_is_what_generate_draws_whatever_the_batch(model, tokenizer, temperature):
    """Catches: rows that read one another's cache, draws that depend on the batch, a token too few."""
    tales = sample_tales(model, tokenizer, 5, 20, temperature, 0.9, seed=7, batch=2)
    for i, tale in enumerate(tales):
        alone = dl.generate(model, [tokenizer.bos_id], 20, temperature, 0.9, tokenizer.stop_ids, seed=7 + i)
        assert tale == tokenizer.decode(alone)
    assert len(set(tales)) == (1 if temperature == 0 else 5)


def test_each_row_continues_its_own_prompt(model):
    """Greedy tales all begin, and so go on, alike; here no two rows do."""
    prompts = torch.randint(500, (5, 9))
    found = continue_prompts(model, prompts, 12, batch=2)
    assert found.tolist() == [list(dl.generate(model, prompt, 12)) for prompt in prompts.tolist()]
    assert len({tuple(row) for row in found.tolist()}) == 5


def test_a_tale_ends_with_the_context_and_before_a_stop_token(model, tokenizer):
    short = randomize(dl.Transformer(dataclasses.replace(CONFIG, max_seq_len=24)))
    tokenizer.stop_ids = ()
    ids = list(dl.generate(short, [tokenizer.bos_id], 100))
    assert len(ids) == 24
    assert sample_tales(short, tokenizer, 1, 100, 0.0, 1.0, seed=0) == [tokenizer.decode(ids)]
    tokenizer.stop_ids = (ids[10],)
    expected = tokenizer.decode(ids[: ids.index(ids[10])])
    assert sample_tales(short, tokenizer, 1, 100, 0.0, 1.0, seed=0) == [expected]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n": 0}, "tales, tokens and batch are 1 or more, found 0, 5 and 64"),
        ({"max_tokens": 0}, "found 3, 0 and 64"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
    ],
)
def test_tales_that_cannot_be_are_refused(model, tokenizer, changed, words):
    arguments = {"n": 3, "max_tokens": 5, "temperature": 1.0, "top_p": 1.0, "seed": 0}
    with pytest.raises(ValueError, match=words):
        sample_tales(model, tokenizer, **(arguments | changed))


def test_listed_words_are_counted_whole_in_capitals_and_across_line_breaks(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("ass\nOld Man\n\n")
    listed = listed_words(path)
    texts = ["The class passed by.", "An Ass, an ass's ear.", "an old\nman and an OLD  man", "an old woman, a man"]
    assert count_listed(texts, listed) == {"texts": 2, "occurrences": 4}
    with pytest.raises(ValueError, match=r"there is no file .*no-list: give the path of a text file"):
        listed_words(tmp_path / "no-list")


# memory

PASSAGE = "Ölaf the wise had É and the hen — of gold.\n"


class Parrot(dl.Transformer):
    """Knows one passage by heart up to a place, says `then` from there on, and zeros after any other prompt."""

    def __init__(self, passage: list[int], then: int) -> None:
        super().__init__(CONFIG)
        self.output, self.passage, self.heard = torch.nn.Identity(), [*passage, then], []

    def hidden(self, tokens, positions, caches):
        fresh = positions[0] == 0
        if fresh:
            self.heard.append(tokens)
        self.read = tokens if fresh else torch.cat((self.read, tokens), dim=1)
        said = torch.tensor([self.next(row[1:].tolist()) for row in self.read])  # without begin-of-text
        return torch.nn.functional.one_hot(said, CONFIG.vocab_size)[:, None].expand(-1, tokens.shape[1], -1)

    def next(self, row: list[int]) -> int:
        return self.passage[len(row)] if row == self.passage[: len(row)] and len(row) < len(self.passage) else 0


@pytest.fixture
def texts():
    return {"a.txt": lines(20, 1), "b.txt": lines(20, 2) + PASSAGE + lines(30, 3), "c.txt": lines(40, 4)}


@pytest.mark.parametrize(
    ("known", "then", "continuation"),
    [
        (5, 0, "e had"),
        (7, 0, "e had "),  # and the first byte of É, which is no character
        (8, 0, "e had É"),
        (8, ord(" "), "e had É "),  # another token than ` and`, but the same first character
        (60, 0, None),
    ],
)
def test_a_passage_known_by_heart_is_found_with_its_length(tokenizer, texts, known, then, continuation):
    """Catches: the prompt counted in, off by one, the wrong row or batch, tokens taken for characters."""
    text = texts["b.txt"][texts["b.txt"].index("Ölaf") :]
    ids = tokenizer.encode(text)
    found = memorised(Parrot(ids[: 10 + known], then), tokenizer, texts, 500, 10, 60, seed=0, batch=7)
    continuation = continuation or tokenizer.decode(ids[10:70])
    assert found["longest"] == {"file": "b.txt", "prompt": "Ölaf the wis", "continuation": continuation}
    assert text.startswith("Ölaf the wis" + continuation)
    assert found["tokens"]["longest"] == known
    assert found["characters"]["longest"] == len(continuation)
    assert found["tokens"]["median"] == found["characters"]["median"] == 0
    assert found["prompts"] > 50
    assert found["share_of_50_characters"] == (round(1 / found["prompts"], 4) if known == 60 else 0)


def test_prompts_are_paragraphs_with_room_behind_them_in_one_file(tokenizer, texts):
    def heard(n, seed):
        parrot = Parrot([], then=0)
        report = memorised(parrot, tokenizer, texts, n, 10, 30, seed, batch=8)
        rows = torch.cat(parrot.heard)
        assert report["prompts"] == len(rows)
        assert (rows[:, 0] == tokenizer.bos_id).all()
        assert rows.shape[1] == 11
        return [tokenizer.decode(row[1:].tolist()) for row in rows]

    room = []
    for text in texts.values():
        starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == "\n")]
        room += [text[i:] for i in starts if len(tokenizer.encode(text[i:])) >= 40]
    every = heard(500, seed=0)
    assert sorted(every) == sorted(tokenizer.decode(tokenizer.encode(rest)[:10]) for rest in room)
    assert len(room) < sum(text.count("\n") for text in texts.values())
    assert heard(6, seed=1) == heard(6, seed=1) != heard(6, seed=2)
    assert set(heard(6, seed=1)) <= set(every)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompts": 0}, "are 1 or more, found 0, 10, 30 and 64"),
        ({"new_tokens": 0}, "are 1 or more"),
        ({"new_tokens": 151}, "10 prompt tokens and 151 new ones do not fit in the model's context of 160"),
        ({"texts": {"a": "too short\nfor this\n"}}, "no paragraph in 1 files has 40 tokens .*: ask for fewer"),
    ],
)
def test_prompts_that_cannot_be_are_told(model, tokenizer, texts, changed, words):
    arguments = {"texts": texts, "prompts": 3, "prompt_tokens": 10, "new_tokens": 30, "seed": 0}
    with pytest.raises(ValueError, match=words):
        memorised(model, tokenizer, **(arguments | changed))


def test_a_full_context_is_enough(tokenizer, texts):
    """The begin-of-text token and 23 more are read; the last of 14 new ones is not."""
    short = randomize(dl.Transformer(dataclasses.replace(CONFIG, max_seq_len=24)))
    assert memorised(short, tokenizer, texts, 2, 10, 14, seed=0)["prompts"] == 2


# all of it


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("z", 3)):
        (folder / f"{name}.txt").write_text(lines(80, seed))
    return folder, Corpus.read(folder, "z.txt")


SETTINGS = EvaluationSettings(tales=3, tale_tokens=12, prompts=4, prompt_tokens=8, new_tokens=9, batch=2)


def test_the_report_collects_the_parts_and_is_json(model, tokenizer, corpus, tmp_path):
    (tmp_path / "list").write_text("king\n")
    _, corpus = corpus
    told = []
    report = evaluate(model, tokenizer, corpus, SETTINGS, listed_words(tmp_path / "list"), told.append)
    report = json.loads(json.dumps(report, allow_nan=False))
    training, held_out = "".join(corpus.files.values()).encode(), corpus.held_out.encode()
    bits = report["bits_per_byte"]
    assert bits["model"] == round(bits_per_byte(model, tokenizer, corpus.held_out, 160)[1], 4)
    orders = ngram_bits_per_byte(training, held_out)
    assert bits["ngram"] == {str(k): round(v, 4) for k, v in enumerate(orders, start=1)}
    xz = compressed_bits_per_byte(training, held_out)["xz"]
    assert bits["xz"] == {name: round(value, 4) for name, value in xz.items()}
    best = min(range(3, 10), key=lambda k: orders[k - 1])
    exact = bits_per_byte(model, tokenizer, corpus.held_out, 160)[1]
    assert report["ratios"] == {
        "model_to_5_gram": round(exact / orders[4], 4),
        "model_to_best_ngram": round(exact / orders[best - 1], 4),
        "best_ngram_order": best,
        "model_to_xz_after_training": round(exact / xz["after_training"], 4),
    }
    assert report["training_text"] == {"files": 2, "bytes": len(training), "sha256": corpus.sha256}
    assert report["settings"] == dataclasses.asdict(SETTINGS) | {"xz_dictionary_bytes": 64 * 2**20}
    assert report["overlap"] == overlap([corpus.held_out], corpus.files)
    assert report["memorised"]["training"]["prompts"] == report["memorised"]["held_out"]["prompts"] == 4
    assert report["memorised"]["held_out"]["longest"]["file"] == "the held-out text"
    assert report["tales"]["listed"].keys() == {"texts", "occurrences"}
    assert len(told) == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompt_tokens": 100, "new_tokens": 100}, "100 prompt tokens and 100 new ones do not fit"),
        ({"new_tokens": 150}, "no paragraph in 1 files has 158 tokens"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_p": 2.0}, "top_p must be above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(wrong, words, model, tokenizer, corpus):
    """A measurement takes an hour: what its last part cannot do is said before its first."""
    reports, texts = [], dataclasses.replace(corpus[1], held_out="One line.\n" * 40)
    if "new_tokens" in wrong and wrong["new_tokens"] == 150:
        texts = dataclasses.replace(corpus[1], held_out="One line.\n")
    with pytest.raises(ValueError, match=words):
        evaluate(model, tokenizer, texts, dataclasses.replace(SETTINGS, **wrong), report=reports.append)
    assert reports == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tales": 0}, "tales must be 1 or more, found 0"),
        ({"batch": 0}, "batch must be 1 or more, found 0"),
        ({"seq_len": 1}, "seq_len must be 2 or more, found 1"),
        ({"prompts": 1.5}, "prompts is a whole number, found 1.5"),
        ({"seed": -1}, "the seed must be 0 or more, found -1"),
        ({"seed": 10**30}, r"the seed must be below 2\*\*32, found"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dataclasses.replace(SETTINGS, **wrong)


def test_an_empty_text_has_no_bits_per_byte(model, tokenizer):
    with pytest.raises(ValueError, match="the text to measure is empty"):
        bits_per_byte(model, tokenizer, "")


def test_the_command_writes_the_report_and_prints_it(model, tokenizer, corpus, tmp_path):
    folder, _ = corpus
    save_huggingface(model, tmp_path / "checkpoint", dtype=torch.float32)
    shutil.copy(tmp_path / "tokenizer.model", tmp_path / "checkpoint")
    (tmp_path / "list").write_text("king\n")
    options = ["--held-out", "z.txt", "--tales", "2", "--prompts", "2", "--device", "cpu"]
    command = ["evaluate", str(folder), str(tmp_path / "checkpoint"), *options]
    result = CliRunner().invoke(
        app, [*command, "--words", str(tmp_path / "list"), "--out", str(tmp_path / "e.json")]
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "e.json").read_text())
    assert (report["settings"]["tales"], report["settings"]["prompts"]) == (2, 2)
    printed = " ".join(result.stdout.split())
    for name, bits in (
        ("the model", report["bits_per_byte"]["model"]),
        ("5-gram", report["bits_per_byte"]["ngram"]["5"]),
        ("xz, after the training text", report["bits_per_byte"]["xz"]["after_training"]),
    ):
        assert f"{name} {bits:.4f} {report['bits_per_byte']['model'] / bits:.3f}" in printed
    assert "a listed word in" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--held-out", "q.txt"], "3 .txt files and no q.txt"),
        (["--held-out", "z.txt", "--words", "no-list"], "there is no file no-list"),
        (["--held-out", "z.txt", "--out", "no/such/e.json"], "make no/such first"),
        (["--held-out", "z.txt", "no-checkpoint"], "no directory no-checkpoint"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(corpus, options, words):
    quickly = ["--tales", "1", "--prompts", "1"]
    result = CliRunner().invoke(app, ["evaluate", str(corpus[0]), *quickly, *options])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
