"""The tokenizer of Llama 2 and Mistral: SentencePiece's byte-pair encoding, by the library sentencepiece."""

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decoding_llama3.inference.tokenizers.library import piece_bytes
from decoding_llama3.inference.tokenizers.model import ModelTokenizer
from decoding_llama3.inference.tokenizers.needed import needed
from decoding_llama3.tokenizer import checked_messages

_FIRST_PIECE = re.compile(rb"\n.\n.<\w+>", re.DOTALL)  # such as <unk>
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # as sentencepiece_model.proto numbers them


class PieceTokenizer(ModelTokenizer):
    """A SentencePiece model, given as the bytes of its file; ValueError where they are none.

    `stated` is what `stated_ends` found beside the file.
    """

    def __init__(self, model: bytes, source: str, stated: Mapping[str, Any] | None = None, **what: Any) -> None:
        library = needed("sentencepiece", "the tokenizer of a Llama 2 or Mistral")
        try:
            self.processor = library.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"{source} is damaged or no SentencePiece model ({str(error)[:80]!r})") from None
        n = self.processor.get_piece_size()
        if n == 0:
            raise ValueError(f"{source} is damaged: a SentencePiece model without pieces; download it again")
        special: dict[str, Any] = {self.processor.id_to_piece(i): i for i in range(n) if self._is_special(i)}
        stated = stated or {}
        bos = special.get(stated.get("bos_name", ""), self.processor.bos_id())
        eos = special.get(stated.get("eos_name", ""), self.processor.eos_id())
        super().__init__(
            n,
            special,
            **{
                "bos_id": bos if bos >= 0 else None,
                "eos_id": eos if eos >= 0 else None,
                "adds_bos": stated.get("adds_bos", bos >= 0),
                **what,
            },
        )

    def _is_special(self, token: int) -> bool:
        return self.processor.is_control(token) or self.processor.is_unknown(token)

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which the names of special tokens stay text."""
        return self.processor.encode(text)

    def ordinary_bytes(self, token: int) -> bytes:
        """The bytes of a token that is not special."""
        return piece_bytes(self.processor.id_to_piece(token))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without the space that `encode` puts before a text."""
        text = super().decode(ids)
        return text[1:] if self._begins_with_space and text.startswith(" ") else text

    def encode_chat(self, messages: Iterable[dict]) -> list[int]:
        """As `ModelTokenizer.encode_chat`; answers are encoded anew, because their spaces depend on the text."""
        messages = checked_messages(messages)
        answers = (m["content"] if isinstance(m["content"], str) else self.decode(m["content"]) for m in messages)
        return super().encode_chat(
            {**message, "content": text} for message, text in zip(messages, answers, strict=True)
        )

    @property
    def _begins_with_space(self) -> bool:
        return self.processor.encode_as_pieces("a")[0].startswith("\u2581")


def piece_model(tokens: Sequence[str], scores: Iterable[float], kinds: Iterable[int], add_space: bool) -> bytes:
    """The file of a SentencePiece model with these pieces, as sentencepiece_model.proto lays it out."""
    content = bytearray()
    for piece, score, kind in zip(tokens, scores, kinds, strict=True):
        entry = _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        content += _field(1, entry)
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # model_type BPE, byte_fallback
    normalizer = _field(1, b"identity") + b"\x18" + bytes([add_space]) + b"\x20\x00" + b"\x28\x01"
    return bytes(content + _field(2, trainer) + _field(3, normalizer))


def is_piece_model(file: Path) -> bool:
    """Whether a tokenizer.model is SentencePiece's, and not Meta's of Llama 3."""
    with file.open("rb") as opened:
        return _FIRST_PIECE.match(opened.read(64)) is not None


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
