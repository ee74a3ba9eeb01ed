"""Llama 3's byte-pair encoding by tiktoken, from the vocabulary and merges of a tokenizer.json or a GGUF file.

tiktoken knows no merges: it joins any two neighbours that make a token, the token of the lowest id first. The
merges of Llama 3 say the same, because they are every way to cut every token into two, in the order of its id.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tiktoken

from decoding_llama3.inference.tokenizers.library import byte_characters
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.tokenizer import SPLIT_PATTERN, Tokenizer

_BYTES = byte_characters()
_CHARACTERS = {byte: char for char, byte in _BYTES.items()}


class RankTokenizer(ModelTokenizer):
    """The ids of ordinary tokens, by their bytes, cut as Llama 3 cuts; `special_ids` stand beside them."""

    def __init__(self, ranks: dict[bytes, int], **what: Any) -> None:
        special_ids = what["special_ids"]
        super().__init__(max(*ranks.values(), *special_ids.values()) + 1, **what)
        self._bpe = tiktoken.Encoding("llama3", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which the names of special tokens stay text."""
        return Tokenizer.encode(self, text)

    def ordinary_bytes(self, token: int) -> bytes:
        """The bytes of a token that is not special; a name for an id that no token has."""
        try:
            return self._bpe.decode_single_token_bytes(token)
        except KeyError:
            return f"<|no_token_{token}|>".encode()

    def encode_chat(self, messages: Iterable[dict]) -> list[int]:
        """Ids of messages, up to where the next answer starts; without a template, in Llama 3's own format.

        Raises ValueError where the template refuses the messages, or no token begins and ends a turn.
        """
        if self.template is None and has_headers(self.special_ids):
            return Tokenizer.encode_chat(self, messages)
        return super().encode_chat(messages)


def has_headers(special_ids: Mapping[str, int]) -> bool:
    """Whether there are the special tokens that Llama 3's chats are written with."""
    return all(f"<|{name}|>" in special_ids for name in ("start_header_id", "end_header_id", "eot_id"))


def ranks_in(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[bytes, int] | None:
    """The ids of tokens by their bytes; None where tiktoken would join other tokens than the merges do."""
    if not _BYTES.keys() <= vocabulary.keys():
        return None
    pairs = {tuple(merge) for merge in merges}
    order = [vocabulary.get("".join(merge), -1) for merge in merges]
    if order != sorted(order) or pairs != {cut for token in vocabulary for cut in _cuts(token, vocabulary)}:
        return None
    try:
        return {bytes(_BYTES[char] for char in token): i for token, i in vocabulary.items()}
    except KeyError:  # a token with a character that stands for no byte
        return None


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """The merges of a vocabulary of Llama 3's kind, in the characters that stand for bytes."""
    written = {written_as(token): i for token, i in ranks.items()}
    return [cut for token in sorted(written, key=written.__getitem__) for cut in _cuts(token, written)]


def written_as(token: bytes) -> str:
    """A token in the characters that stand for bytes."""
    return "".join(map(_CHARACTERS.__getitem__, token))


def _cuts(token: str, vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Every way to cut a token into two tokens."""
    for i in range(1, len(token)):
        if token[:i] in vocabulary and token[i:] in vocabulary:
            yield token[:i], token[i:]
