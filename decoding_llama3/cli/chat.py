"""`chat`: talk with an instruct model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from decoding_llama3.cli.conversation import Conversation
from decoding_llama3.cli.generate import check_text, seed_of
from decoding_llama3.cli.models import load, say_chat_format
from decoding_llama3.cli.options import (
    TEXT,
    Compile,
    Device,
    Dtype,
    Quantize,
    Seed,
    ShowTokens,
    TokenizerPath,
    Tokens,
    TopP,
    temperature_option,
)
from decoding_llama3.cli.several import from_first, is_alone, is_first
from decoding_llama3.cli.speed import Speed
from decoding_llama3.cli.terminal import note, write, write_generated
from decoding_llama3.cli.tokens import note_tokens
from decoding_llama3.inference.prefix import prefix_length

if TYPE_CHECKING:
    import decoding_llama3 as dl


def chat(
    checkpoint: Annotated[str, typer.Argument(help="The directory of an instruct model.")],
    system: Annotated[str | None, typer.Option(help="The system message.", rich_help_panel=TEXT)] = None,
    tokens: Tokens = 512,
    temperature: Annotated[float, temperature_option("0.6")] = 0.6,
    top_p: TopP = 0.9,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    compile: Compile = False,
    tokenizer: TokenizerPath = None,
    show_tokens: ShowTokens = False,
) -> None:
    """Talk with an instruct model; an empty line or Ctrl-D ends the talk, Ctrl-C ends an answer.

    When the context is full, the oldest turns are forgotten, which is said; the system message stays.
    """
    if checkpoint == "tiny":
        raise ValueError("tiny has never seen a chat, only tales: use 'generate', or give an instruct model")
    model, tokens_of = load(checkpoint, tokenizer, device, dtype, quantize, compile)
    say_chat_format(checkpoint, tokens_of)
    system = system and check_text("the system message", system)
    conversation = Conversation(tokens_of, model.config.max_seq_len, tokens, system)
    talk = _Talk(model, compile, conversation, tokens, temperature, top_p, seed_of(seed, temperature))
    while turn := from_first(_next_turn(conversation) if is_first() else None):
        message, prompt = turn
        if show_tokens:
            note_tokens("prompt", tokens_of, prompt)
        talk.answer(message, prompt)
        if show_tokens:
            note_tokens("answer", tokens_of, conversation.answer)


def _next_turn(conversation: Conversation) -> tuple[str, list[int]] | None:
    """What the user says next, with all ids up to where its answer starts; None at the end of the talk."""
    for message in iter(_ask, ""):
        try:
            prompt, n_dropped = conversation.prompt(check_text("the message", message))
        except ValueError as error:
            note(f"{error}; it was not sent")
            continue
        if n_dropped:
            note(f"the context of {conversation.context} tokens is full: the oldest {_turns(n_dropped)} forgotten")
        return message, prompt
    return None


class _Talk:
    """A generator that holds the conversation, and how its answers are drawn."""

    def __init__(
        self,
        model: dl.Transformer,
        compile: bool,
        conversation: Conversation,
        tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
    ) -> None:
        from decoding_llama3.inference.generator import Generator

        self.conversation, self.speed = conversation, Speed()
        self.generator = Generator(model, compile, report=self.speed.report)
        self.tokens, self.temperature, self.top_p, self.seed = tokens, temperature, top_p, seed
        self._draw([conversation.tokenizer.bos_id], 0)  # wrong values are refused before the first message

    def answer(self, message: str, prompt: list[int]) -> None:
        """Print the answer to `message`, which ends `prompt`, as it comes, until Ctrl-C, and remember it."""
        tokenizer, new, was_stopped = self.conversation.tokenizer, [], False
        n_known = prefix_length(self.generator.past, prompt[:-1])
        timed = self.speed.timed(self._draw(prompt, self.tokens), len(prompt) - n_known)

        def remembered() -> Iterator[int]:
            for token in timed:
                new.append(token)
                yield token

        try:
            for piece in tokenizer.decode_stream(remembered()):
                write_generated(piece)
        except KeyboardInterrupt:
            if not is_alone():  # the others may be in the midst of another token
                raise
            was_stopped = True
            if not new:  # stopped while the prompt was read: what of it is in the caches is not known
                self.generator.past = []
        write("\n")
        if new or not was_stopped:
            self.conversation.add(message, new)
        if self.seed is not None:
            self.seed = (self.seed + 1) % 2**64
        self._say_how_it_ended(len(new), was_stopped, self.conversation.context - len(prompt) + 1)

    def _draw(self, prompt: list[int], tokens: int) -> Iterator[int]:
        stop_ids = self.conversation.tokenizer.stop_ids
        return self.generator.generate(
            prompt, tokens, self.temperature, self.top_p, stop_ids, self.seed, keep=True
        )

    def _say_how_it_ended(self, n_new: int, was_stopped: bool, room: int) -> None:
        if was_stopped:
            note("the answer was stopped")
        elif n_new == self.tokens:
            note(f"the answer was cut after {self.tokens} tokens: --tokens sets how many it may have")
        elif n_new == room:
            note("the answer was cut, because the context is full")
        note(self.speed.line())


def _ask() -> str:
    """What the user types, "" at the end of it."""
    sys.stderr.write("you: ")
    sys.stderr.flush()
    try:
        return input().strip()
    except (EOFError, UnicodeDecodeError) as error:
        sys.stderr.write("\n")
        if isinstance(error, UnicodeDecodeError):
            raise
        return ""


def _turns(n: int) -> str:
    return "turn is" if n == 1 else f"{n} turns are"
