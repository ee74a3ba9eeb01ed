"""A byte-level BPE vocabulary of our own, in the format of Llama 3's tokenizer.model."""

import base64
from collections.abc import Iterable
from pathlib import Path

from decoding_llama3.experiments.files import write_whole
from decoding_llama3.tokenizer import N_SPECIAL, SPLIT_PATTERN


def train_tokenizer(texts: Iterable[str], vocab_size: int, path: Path) -> None:
    """Write a vocabulary of `vocab_size` tokens, the 256 special ones included, learned from `texts`.

    Raises ValueError where that is too small, or the texts give fewer tokens.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # only training needs it

    if vocab_size < 256 + N_SPECIAL:
        raise ValueError(
            f"a vocabulary of {vocab_size} is too small: 256 bytes and {N_SPECIAL} special tokens come first"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - N_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    training_lines = (line for text in texts for line in text.splitlines(keepends=True))
    tokenizer.train_from_iterator(training_lines, trainer)
    byte_of = _byte_of_symbol()
    learned = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [bytes(byte_of[symbol] for symbol in token) for token, _ in learned]
    tokens = [bytes([b]) for b in range(256)] + [token for token in tokens if len(token) > 1]
    if len(tokens) != vocab_size - N_SPECIAL:
        raise ValueError(
            f"the text gives only {len(tokens)} tokens, {vocab_size - N_SPECIAL} wanted: give more text"
        )
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    data = b"".join(lines)
    write_whole(path, lambda fresh: fresh.write_bytes(data))


def _byte_of_symbol() -> dict[str, int]:
    # tokenizers writes each byte as one printable character: itself, or, if unprintable, one from U+0100 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}
