"""Tokens as a reader sees them: each with its id, special ones by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from decoding_llama3.cli.terminal import note

if TYPE_CHECKING:
    from decoding_llama3.tokenizer import Tokenizer


def note_tokens(what: str, tokenizer: Tokenizer, ids: Iterable[int]) -> None:
    """Say which tokens a text has, as `504 'The' | 3575 ' capital'`; half a character is shown as its bytes."""
    note(f"{what}: " + " | ".join(f"{token} {shown(tokenizer, token)}" for token in ids))


def noted(wanted: bool, tokenizer: Tokenizer, prompt: Iterable[int], tokens: Iterable[int]) -> Iterator[int]:
    """`tokens` as they come; if that is wanted, those of `prompt` are said before, and they after the last."""
    if wanted:
        note_tokens("prompt", tokenizer, prompt)
    seen = []
    for token in tokens:
        seen.append(token)
        yield token
    if wanted:
        note_tokens("new tokens", tokenizer, seen)


def shown(tokenizer: Tokenizer, token: int) -> str:
    """One token, quoted: its text, or its bytes where they are no text."""
    content = tokenizer.token_bytes(token)
    try:
        return repr(content.decode())
    except UnicodeDecodeError:
        return repr(content)
