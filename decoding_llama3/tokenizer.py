"""Part 1 - the tokenizer: byte-level BPE over tiktoken, special tokens and the chat format of Llama 3.

The file format, the split pattern and the numbering of the special tokens are Meta's (package llama-models
0.3.0, llama3/tokenizer.py); they are facts that every Llama 3 was trained with.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

import tiktoken

# Words, with the sign before them; numbers in threes from the left; punctuation; line ends; other space.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_SPECIAL = 256
_NAMED_SPECIAL = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    5: "step_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
    11: "image",
}
MAX_CHUNK = 400_000  # characters; tiktoken fails on more at once
MAX_RUN = 25_000  # characters without a space, or of nothing else; tiktoken takes quadratic time on them
ROLES = ("system", "user", "assistant", "ipython")


class Tokenizer:
    """Text to token ids and back. Reads a `tokenizer.model` in Meta's format: a line a token, `base64 rank`."""

    def __init__(self, path: str | PathLike) -> None:
        ranks = _read_ranks(Path(path))
        self.special_ids = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(_special_names())}
        self.n_vocab: int = len(ranks) + N_SPECIAL
        self.bos_id: int = self.special_ids["<|begin_of_text|>"]
        self.eos_id: int = self.special_ids["<|end_of_text|>"]
        self.stop_ids: tuple[int, ...] = tuple(
            self.special_ids[f"<|{name}|>"] for name in ("end_of_text", "eom_id", "eot_id")
        )
        self._bpe = tiktoken.Encoding(
            name=str(path), pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=self.special_ids
        )

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of `text`. Text that looks like a special token, such as "<|eot_id|>", stays text."""
        if not isinstance(text, str):
            raise TypeError(f"encode takes a string, found {type(text).__name__}")
        ids = [token for piece in _pieces(text) for token in self._bpe.encode_ordinary(piece)]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; bytes that are no UTF-8, such as half an emoji, become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text of token ids as they come, holding back the bytes of a character until it is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in ids:
            if piece := decoder.decode(self.token_bytes(token)):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; a special token stands for its name."""
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token id {token} is outside this tokenizer's 0 to {self.n_vocab - 1}")
        return self._bpe.decode_single_token_bytes(token)

    def encode_chat(self, messages: Iterable[dict[str, str]]) -> list[int]:
        """Ids of a conversation of `{"role": ..., "content": ...}`, up to where the assistant's answer starts."""
        ids = [self.bos_id]
        for message in messages:
            if not isinstance(message, dict) or message.keys() != {"role", "content"}:
                raise ValueError(f"a message is a dict with the keys role and content, found {message!r}")
            if message["role"] not in ROLES:
                raise ValueError(f"the role of a message is one of {', '.join(ROLES)}, found {message['role']!r}")
            ids += self._header(message["role"]) + self.encode(message["content"].strip())
            ids.append(self.special_ids["<|eot_id|>"])
        return ids + self._header("assistant")

    def _header(self, role: str) -> list[int]:
        start, end = self.special_ids["<|start_header_id|>"], self.special_ids["<|end_header_id|>"]
        return [start, *self.encode(role), end, *self.encode("\n\n")]


def _special_names() -> Iterator[str]:
    reserved = 0
    for i in range(N_SPECIAL):
        if i in _NAMED_SPECIAL:
            yield _NAMED_SPECIAL[i]
        else:
            yield f"reserved_special_token_{reserved}"
            reserved += 1


def _pieces(text: str) -> Iterator[str]:
    # Where Meta cuts, we cut: a cut inside a word changes its tokens.
    for start in range(0, len(text), MAX_CHUNK):
        chunk, done = text[start : start + MAX_CHUNK], 0
        for run in re.finditer(rf"\s{{{MAX_RUN + 1},}}|\S{{{MAX_RUN + 1},}}", chunk):
            for cut in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
                yield chunk[done:cut]
                done = cut
        yield chunk[done:]


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except FileNotFoundError:
        raise ValueError(f"no tokenizer file {path}: pass the path of a Llama 3 tokenizer.model") from None
    except (ValueError, binascii.Error):
        raise ValueError(
            f"{path} is not a Llama 3 tokenizer.model (lines of 'base64 rank'); a SentencePiece file, as of "
            "Llama 2 and Mistral, is not supported: use the tokenizer.model of a Llama 3"
        ) from None
    if sorted(ranks.values()) != list(range(len(pairs))) or any(bytes([b]) not in ranks for b in range(256)):
        raise ValueError(
            f"{path} is damaged: expected ranks 0, 1, 2, ... once each and all 256 single bytes among the "
            f"tokens, found {len(ranks)} tokens in {len(pairs)} lines; download it again"
        )
    return ranks
