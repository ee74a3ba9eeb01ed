"""Byte-pair encoding with the vocabulary of a tokenizer.json, or of a GGUF file, by the library tokenizers."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from decoding_llama3.inference.tokenizers.model import ModelTokenizer

if TYPE_CHECKING:
    import tokenizers


def byte_characters() -> dict[str, int]:
    """The characters that byte-level vocabularies write for bytes, as GPT-2 did: printable ones for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


class LibraryTokenizer(ModelTokenizer):
    """A tokenizer of the library tokenizers, in which a token's text stands for bytes.

    `byte_level` says how: a character for each byte, or else SentencePiece's way, with U+2581 for a space and
    <0x0A> for a byte.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", byte_level: bool, **what: Any) -> None:
        n_vocab = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        super().__init__(n_vocab, **what)
        tokenizer.encode_special_tokens = True  # their names in a text stay text
        tokenizer.no_truncation()  # which a file may ask for: the end of a text would be lost in silence
        tokenizer.no_padding()
        self.library, self.byte_level = tokenizer, byte_level

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which the names of special tokens stay text."""
        return self.library.encode(text, add_special_tokens=False).ids

    def ordinary_bytes(self, token: int) -> bytes:
        """The bytes of a token that is not special; none for an id that no token has."""
        text = self.library.id_to_token(token)
        if text is None:
            return f"<|no_token_{token}|>".encode()
        if self.byte_level:
            return bytes(_BYTES[c] for c in text) if all(c in _BYTES for c in text) else text.encode()
        return piece_bytes(text)

    def characters_without_token(self, text: str) -> list[str]:
        """The characters of `text` that `encode` loses, each once: those with a byte that is no token."""
        if not self._lost_bytes:
            return []
        return [c for c in dict.fromkeys(text) if not self._lost_bytes.isdisjoint(c.encode())]

    @cached_property
    def _lost_bytes(self) -> set[int]:
        vocabulary = self.library.get_vocab(with_added_tokens=False)
        return {byte for char, byte in _BYTES.items() if char not in vocabulary} if self.byte_level else set()


_BYTES = byte_characters()


def piece_bytes(piece: str) -> bytes:
    """The bytes of a piece as SentencePiece writes it."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()
