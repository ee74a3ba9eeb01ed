"""Part 1 - the tokenizer: byte-level BPE over tiktoken, special tokens, Llama 3's chat format.

The file format, the split pattern and the numbering of the special tokens are Meta's (package
llama-models 0.3.0, llama3/tokenizer.py); they are facts that every Llama 3 was trained with.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import tiktoken

from decoding_llama3.tokenizer_file import N_SPECIAL, read_ranks, special_names

# Words with the sign before them, numbers in threes, punctuation, line ends, other space.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_CHUNK = 400_000  # characters; tiktoken fails on more at once
MAX_RUN = 25_000  # characters without a space, or of nothing else; tiktoken was slow on more
# Tried only where a run starts, so that the search takes linear time.
_LONG_RUN = re.compile(rf"(?<!\s)\s{{{MAX_RUN + 1},}}|(?<!\S)\S{{{MAX_RUN + 1},}}")
ROLES = ("system", "user", "assistant", "ipython")
_ONE_SEQUENCE = "pass the integers of one sequence"


class Tokenizer:
    """Text to token ids and back, with the vocabulary of a `tokenizer.model` in Meta's format.

    `added_tokens` names the tokens that a fine-tuned model has after the special ones, in the
    order of their ids. Each method raises ValueError on wrong values, TypeError on wrong types.
    """

    def __init__(self, path: str | PathLike, added_tokens: Sequence[str] = ()) -> None:
        names, ranks = [*special_names(), *added_tokens], read_ranks(Path(path))
        self.special_ids = {name: len(ranks) + i for i, name in enumerate(names)}
        self.n_vocab: int = len(ranks) + len(names)
        if isinstance(added_tokens, str) or len(self.special_ids) < len(names):
            found = f"{names[N_SPECIAL:]!r:.60}"
            raise ValueError(f"added_tokens is a list of distinct new names, found {found}")
        self.bos_id: int = self.special_ids["<|begin_of_text|>"]
        self.eos_id: int = self.special_ids["<|end_of_text|>"]
        self.stop_ids: tuple[int, ...] = tuple(
            self.special_ids[f"<|{name}|>"] for name in ("end_of_text", "eom_id", "eot_id")
        )
        self._bpe = tiktoken.Encoding(
            name=str(path),
            pat_str=SPLIT_PATTERN,
            mergeable_ranks=ranks,
            special_tokens=self.special_ids,
        )

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of `text`, in which the name of a special token, "<|eot_id|>", stays text.

        Half of a surrogate pair, which is no character, is read as U+FFFD.
        """
        self._check_encode(text, bos, eos)
        ids = [token for piece in _pieces(text) for token in self._bpe.encode_ordinary(piece)]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; bytes that are no UTF-8, such as half an emoji, become U+FFFD.

        `ids` is one sequence: a list, an iterator, or a tensor or array of shape (seq,).
        """
        return b"".join(map(self.token_bytes, _sequence(ids))).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text of token ids as they come, holding back bytes until their character is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in _sequence(ids):
            if piece := decoder.decode(self.token_bytes(token)):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for; a special token stands for its name."""
        return self._bpe.decode_single_token_bytes(as_id(token, self.n_vocab))

    def encode_chat(self, messages: Iterable[dict[str, Any]]) -> list[int]:
        """Ids of messages `{"role": ..., "content": ...}`, up to where the next answer starts.

        The content is a text, text parts, or the ids that a model answered, which stay as is.

        The format is Llama 3's own. According to public reports, templates that others ship for
        Llama 3.1 and later always start with a system message of two more lines, "Cutting
        Knowledge Date: ..." and "Today Date: ...". Pass them if you want them.
        """
        ids = [self.bos_id]
        for message in checked_messages(messages):
            content = message["content"]
            ids += self._header(message["role"])
            ids += self.encode(content.strip()) if isinstance(content, str) else content
            ids.append(self.special_ids["<|eot_id|>"])
        return ids + self._header("assistant")

    @staticmethod
    def _check_encode(text: object, bos: object, eos: object) -> None:
        if not isinstance(text, str):
            found = type(text).__name__
            raise TypeError(f"encode takes a string, found {found}: decode bytes, join lists")
        if not isinstance(bos, bool) or not isinstance(eos, bool):
            raise TypeError(f"bos and eos are True or False, found {bos!r} and {eos!r}")

    def _header(self, role: str) -> list[int]:
        start, end = (self.special_ids[f"<|{side}_header_id|>"] for side in ("start", "end"))
        return [start, *self.encode(role), end, *self.encode("\n\n")]


def _pieces(text: str) -> Iterator[str]:
    # Where Meta cuts, we cut: a cut inside a word changes its tokens.
    for start in range(0, len(text), MAX_CHUNK):
        chunk, done = text[start : start + MAX_CHUNK], 0
        for run in _LONG_RUN.finditer(chunk):
            for cut in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
                yield chunk[done:cut]
                done = cut
        yield chunk[done:]


def _as_python(ids: Any) -> Any:
    # Tensors, arrays and what they hold become Python's own lists and numbers.
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _sequence(ids: Any) -> Iterable:
    ids = _as_python(ids)
    if isinstance(ids, (str, bytes, bytearray)) or not isinstance(ids, Iterable):
        raise TypeError(f"decode takes token ids, found {ids!r:.60}: {_ONE_SEQUENCE}")
    return ids


def as_id(token: Any, n_vocab: int) -> int:
    """A token id as Python's integer; TypeError or ValueError if it is none below `n_vocab`."""
    token = _as_python(token)
    if isinstance(token, bool) or not isinstance(token, int):
        raise TypeError(f"a token id is an integer, found {token!r:.60}: {_ONE_SEQUENCE}")
    if not 0 <= token < n_vocab:
        raise ValueError(f"token id {token} is outside this tokenizer's 0 to {n_vocab - 1}")
    return token


def checked_messages(messages: Any) -> list[dict[str, Any]]:
    """Messages with a role and a content each, or TypeError or ValueError.

    A content is a text, a list of parts `{"type": "text", "text": ...}`, which are joined, or
    the list of ids that a model answered.
    """
    if isinstance(messages, (str, dict)) or not isinstance(messages, Iterable):
        raise TypeError(f"encode_chat takes a list of messages, found {messages!r:.60}")
    return [_checked_message(message) for message in messages]


def _checked_message(message: object) -> dict[str, Any]:
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        found = f"{message!r:.60}"
        raise ValueError(f"a message is a dict with the keys role and content, found {found}")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or role not in ROLES:
        roles = ", ".join(ROLES)
        raise ValueError(f"the role of a message is one of {roles}, found {role!r:.60}")
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    answered = isinstance(content, list) and all(type(token) is int for token in content)
    if not isinstance(content, str) and not answered:
        found = f"{content!r:.60}: pass the text alone"
        raise TypeError(f"the content of a message is a string or text parts, found {found}")
    return {"role": role, "content": content}


def _is_text_part(part: object) -> bool:
    if not isinstance(part, dict) or part.get("type") != "text":
        return False
    return isinstance(part.get("text"), str)
