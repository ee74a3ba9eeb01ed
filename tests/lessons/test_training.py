"""The trainer: a run is a function of its settings and text, whatever stops it on the way."""

import csv
import dataclasses
import itertools
import json
import math
import random

import pytest
import torch
from safetensors.torch import load_file

import decoding_llama3 as dl
from decoding_llama3.lessons import training
from decoding_llama3.lessons.tokenizer_training import train_tokenizer
from decoding_llama3.lessons.training import Corpus, TrainingSettings, Windows, bits_per_byte, train

SETTINGS = TrainingSettings(steps=7, batch=2, seq_len=16, warmup=2, seed=1)
WORDS = ["king", "queen", "bird", "golden", "apple", "said", "went", "the", "a", "wood", "and", "old"]


def config(vocab_size: int = 600) -> dl.LlamaConfig:
    return dl.LlamaConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=48, vocab_size=vocab_size, tie_embeddings=True
    )


@pytest.fixture
def folder(tmp_path):
    """Three files of invented lines; the held-out one has words that no other has."""
    draw, folder = random.Random(0), tmp_path / "texts"
    folder.mkdir()
    for name, words, n in (("a", WORDS, 120), ("b", WORDS, 120), ("z", ["dragon", "unseen", "elsewhere"], 6)):
        lines = (" ".join(draw.choices(words, k=draw.randint(4, 12))) + "." for _ in range(n))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def corpus(folder):
    # A text of 12 words has fewer than 88 merges in it: letters at random supply the rest.
    draw = random.Random(1)
    letters = ("".join(draw.choices("abcdefgh ", k=40)).strip() for _ in range(100))
    (folder / "b.txt").write_text((folder / "b.txt").read_text() + "\n".join(letters) + "\n")
    return Corpus.read(folder, "z.txt")


def finish(corpus, out, settings=SETTINGS, save_every=3):
    return list(train(corpus, config(), settings, out, save_every=save_every))


def weights(out):
    return load_file(out / "model.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_run_twice_gives_the_same_weights_bit_for_bit(corpus, tmp_path):
    for name in "xy":
        finish(corpus, tmp_path / name)
    finish(corpus, tmp_path / "other", dataclasses.replace(SETTINGS, seed=2))
    assert same(weights(tmp_path / "x"), weights(tmp_path / "y"))
    assert not same(weights(tmp_path / "x"), weights(tmp_path / "other"))


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_run_ends_with_the_weights_of_one_never_killed(corpus, tmp_path, killed_after):
    """Were the data order, the optimizer's state or the schedule lost, the weights would differ."""
    finish(corpus, tmp_path / "whole")
    killed = train(corpus, config(), SETTINGS, tmp_path / "killed", save_every=3)
    list(itertools.islice(killed, killed_after))
    killed.close()
    assert not (tmp_path / "killed/model.safetensors").exists()
    resumed = finish(corpus, tmp_path / "killed")
    assert len(resumed) == 7 - killed_after // 3 * 3
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_kill_while_saving_leaves_the_state_before(corpus, tmp_path, monkeypatch):
    run = train(corpus, config(), SETTINGS, tmp_path, save_every=1)
    list(itertools.islice(run, 2))
    before = (tmp_path / "state.pt").read_bytes()

    def cut_short(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(training.torch, "save", cut_short)
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_other_text_or_settings_do_not_go_on_from_there(corpus, tmp_path):
    list(itertools.islice(train(corpus, config(), SETTINGS, tmp_path, save_every=1), 1))
    with pytest.raises(ValueError, match="belongs to a run with other text or settings"):
        finish(corpus, tmp_path, dataclasses.replace(SETTINGS, learning_rate=1e-3))
    with pytest.raises(ValueError, match="belongs to a run with other text or settings"):
        finish(dataclasses.replace(corpus, sha256="0" * 64), tmp_path)


def test_the_loss_falls_and_everything_is_written(corpus, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=60, batch=8, learning_rate=1e-2)
    records = finish(corpus, tmp_path, settings, save_every=20)
    assert records[0]["loss"] == pytest.approx(math.log(600), abs=0.1)  # knows nothing yet
    assert records[-1]["loss"] < records[0]["loss"] - 1
    rows = list(csv.DictReader((tmp_path / "loss.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    assert [int(row["step"]) for row in rows if row["held_out"]] == [20, 40, 60]
    summary = json.loads((tmp_path / "training.json").read_text())
    assert summary["corpus"] | {"sha256": corpus.sha256, "files": 2} == summary["corpus"]
    model, tokenizer = dl.load_model(tmp_path, dtype=torch.float32), dl.load_tokenizer(tmp_path)
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, 16)
    assert summary["held_out"]["nats_per_token"] == round(nats, 4)
    assert summary["held_out"]["bits_per_byte"] == round(bits, 4)


def test_the_held_out_file_is_seen_by_neither_tokenizer_nor_model(corpus, tmp_path):
    finish(corpus, tmp_path)
    tokenizer = dl.load_tokenizer(tmp_path)
    assert len(tokenizer.encode(" golden")) < 3 < len(tokenizer.encode(" elsewhere"))
    assert "dragon" in corpus.held_out
    assert not any("dragon" in text for text in corpus.files.values())


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    settings = TrainingSettings(steps=100, warmup=10, decay=0.2, learning_rate=1.0)
    rates = [settings.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([(100 - i) / 20 for i in range(80, 100)])


@pytest.fixture
def windows(corpus, tmp_path):
    train_tokenizer(corpus.files.values(), 600, tmp_path / "tokenizer.model")
    tokenizer = dl.Tokenizer(tmp_path / "tokenizer.model")
    return tokenizer, Windows(tokenizer, list(corpus.files.values()), 16, seed=0)


def test_every_window_starts_a_paragraph_behind_a_begin_of_text(corpus, windows):
    tokenizer, windows = windows
    starts = {line[:8] for text in corpus.files.values() for line in text.splitlines()}
    for step in range(windows.per_epoch // 4 - 1):
        inputs, targets = windows.batch(step, 4)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert (inputs[:, 0] == tokenizer.bos_id).all()
        for row in inputs:
            text = tokenizer.decode(row[1:].tolist())
            assert any(start.startswith(text[:8]) for start in starts), text


def test_an_epoch_goes_through_the_text_once(windows):
    """Evenly spread starts, moved to the next paragraph: hardly two alike, and another order each epoch."""
    _, windows = windows
    first, second = (windows._order(epoch) for epoch in (0, 1))
    assert len(first) == windows.per_epoch
    assert len(first.unique()) > 0.5 * len(first)
    assert not torch.equal(first, second)


def test_too_little_text_is_told(tmp_path, windows):
    tokenizer, _ = windows
    with pytest.raises(ValueError, match="too little for sequences of 512"):
        Windows(tokenizer, ["One line.\nAnother.\n"], 512, seed=0)
    (tmp_path / "one.txt").write_text("x")
    with pytest.raises(ValueError, match=r"has 1 \.txt files and a one\.txt"):
        Corpus.read(tmp_path, "one.txt")


def test_bits_per_byte_of_a_model_that_knows_nothing(windows):
    """With equal logits every token costs log2(vocabulary) bits, whatever the window."""
    tokenizer, _ = windows
    model = dl.Transformer(config())
    model.output.weight.data.zero_()
    text = "The king said: a golden bird went — old — and a queen too.\n" * 9
    nats, bits = bits_per_byte(model, tokenizer, text, seq_len=16)
    assert nats == pytest.approx(math.log(600), rel=1e-6)
    assert bits == pytest.approx(math.log2(600) * len(tokenizer.encode(text)) / len(text.encode()), rel=1e-6)


def test_bits_per_byte_counts_every_token_once(windows):
    """Where one window holds the whole text, it is the plain mean loss."""
    tokenizer, _ = windows
    model = dl.Transformer(config())
    text = "the king went and the queen said a golden apple"
    ids = torch.tensor([tokenizer.encode(text, bos=True)])
    expected = torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item()
    assert bits_per_byte(model, tokenizer, text, seq_len=4 * len(ids[0]))[0] == pytest.approx(expected, rel=1e-5)


def test_a_vocabulary_is_learned_in_llama_3s_format(corpus, windows):
    tokenizer, _ = windows
    assert tokenizer.n_vocab == 600
    assert [tokenizer.token_bytes(i) for i in range(256)] == [bytes([i]) for i in range(256)]
    text = corpus.files["a.txt"]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < 0.4 * len(text)


def test_a_vocabulary_the_text_cannot_fill_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"the text gives only 25\d tokens, 744 wanted: give more text"):
        train_tokenizer(["a a a\n"], 1000, tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="a vocabulary of 500 is too small"):
        train_tokenizer(["a"], 500, tmp_path / "tokenizer.model")
    assert not (tmp_path / "tokenizer.model").exists()
