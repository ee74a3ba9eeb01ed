"""Part 1 - texts, and how many tokens lists of another size or with another split make of them."""

import inspect
from collections.abc import Mapping

import tiktoken

from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.lessons.show import OPENING, TALE
from decoding_llama3.tokenizer import SPLIT_PATTERN

SENTENCES = {  # the translations are ours
    "English": OPENING,
    "German": "Es war einmal ein König, der hatte einen goldenen Vogel",
    "French": "Il était une fois un roi qui avait un oiseau d'or",
    "Spanish": "Érase una vez un rey que tenía un pájaro de oro",
    "Greek": "Μια φορά κι έναν καιρό ήταν ένας βασιλιάς που είχε ένα χρυσό πουλί",
    "Russian": "Жил-был король, у которого была золотая птица",
    "Hindi": "एक समय की बात है, एक राजा था जिसके पास एक सोने की चिड़िया थी",
    "Chinese": "从前有一个国王，他有一只金色的鸟",
    "Japanese": "昔々、金の鳥を持っている王様がいました",
}
CODE = inspect.getsource(FeedForward)
NUMBERS = "3.14159 1234567 0.001 2024 65536 299792458 1,000,000 42 7.5 128256"
KINDS = {
    "an English tale": TALE,
    "eight other languages": "\n".join(text for name, text in SENTENCES.items() if name != "English"),
    "Python code": CODE,
    "numbers": NUMBERS,
}
ODD = ["", " ", "1234567 3.14159", "HE'LL don't\r\n\n\t  x  ", "🦙👩‍🚀", " jeho Việt"]  # what breaks tokenizers

# Llama 3's split pattern with one of its rules changed.
SINGLE_DIGITS = SPLIT_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
SINGLE_SPACES = SPLIT_PATTERN.replace(r"|\s*[\r\n]+|\s+(?!\S)|\s+", r"|\s")
SIGNS_APART = SPLIT_PATTERN.replace(r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?\p{L}+").replace(
    r"\p{N}]+[\r\n]*", r"\p{N}]+"
)
assert SPLIT_PATTERN not in (SINGLE_DIGITS, SINGLE_SPACES, SIGNS_APART)


def pieces_by(text: str, ranks: Mapping[bytes, int], pattern: str = SPLIT_PATTERN) -> list[bytes]:
    """The tokens of a text with another list of pieces, or split otherwise before the merges."""
    encoding = tiktoken.Encoding("another", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})
    return [encoding.decode_single_token_bytes(token) for token in encoding.encode_ordinary(text)]
