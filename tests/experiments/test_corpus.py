"""The text: windows that start where a paragraph does, repeated spans, and what is left out before training."""

import pytest
import torch

import decoding_llama3 as dl
from decoding_llama3.experiments.corpus import (
    UNSCORED,
    Corpus,
    Windows,
    encode_all,
    repeated_span,
)
from decoding_llama3.experiments.training.vocabulary import train_tokenizer


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # a step of so small a model is shorter than the wait of two threads for each other


@pytest.fixture
def windows(corpus, tmp_path):
    train_tokenizer(corpus.files.values(), 600, tmp_path / "tokenizer.model")
    tokenizer = dl.Tokenizer(tmp_path / "tokenizer.model")
    return tokenizer, Windows(tokenizer, encode_all(tokenizer, list(corpus.files.values())), 16, seed=0)


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
        Windows(tokenizer, encode_all(tokenizer, ["One line.\nAnother.\n"]), 512, seed=0)
    (tmp_path / "one.txt").write_text("x")
    with pytest.raises(ValueError, match=r"has 1 \.txt files and a one\.txt"):
        Corpus.read(tmp_path, "one.txt")


def test_a_repeated_span_says_itself_again_and_scores_only_what_can_be_foretold(windows):
    tokenizer, _ = windows
    generator, periods = torch.Generator().manual_seed(0), set()
    for _ in range(30):
        inputs, targets = repeated_span(tokenizer, 40, 20, generator)
        assert len(inputs) == len(targets) == 40
        assert inputs[0] == tokenizer.bos_id
        period = next(p for p in range(1, 40) if torch.equal(inputs[1 : 40 - p], inputs[1 + p :]))
        span = inputs[1 : period + 1]
        assert len(span.unique()) == period  # so that the last time a word was said is one place
        assert span.min() >= 256
        assert span.max() < tokenizer.n_vocab - 256  # words only: no single byte, nothing special
        assert (targets[: period + 1] == UNSCORED).all()
        assert torch.equal(targets[period + 1 : -1], inputs[period + 2 :])
        periods.add(period)
    assert min(periods) >= 4
    assert max(periods) <= 20
    near = [repeated_span(tokenizer, 40, 5, generator)[1] for _ in range(10)]
    assert max((targets == UNSCORED).sum() for targets in near) <= 6
    assert len(periods) > 8  # one distance alone could be learned as a distance


def test_texts_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*none: give one with \.txt files"):
        Corpus.read(tmp_path / "none", "a.txt")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("text")
    with pytest.raises(ValueError, match=r"the 1 files of .* beside b\.txt are empty: give text to train on"):
        Corpus.read(tmp_path, "b.txt")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 at byte 3: save it as UTF-8 text"):
        Corpus.read(tmp_path, "b.txt")
