"""`generate`: continue a text."""

import secrets
import sys
from typing import Annotated

import typer

from decoding_llama3.cli.models import load
from decoding_llama3.cli.options import (
    Checkpoint,
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
from decoding_llama3.cli.several import from_first, is_first
from decoding_llama3.cli.speed import Speed
from decoding_llama3.cli.terminal import note, write, write_generated
from decoding_llama3.cli.tokens import noted

TINY_TEMPERATURE = 0.8  # with the most probable token alone, a model so small soon says the same again and again


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; '-' reads it from standard input.")],
    checkpoint: Checkpoint = "tiny",
    tokens: Tokens = 200,
    temperature: Annotated[
        float | None, temperature_option(f"{TINY_TEMPERATURE} for tiny, which repeats itself otherwise, else 0")
    ] = None,
    top_p: TopP = 0.9,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    quantize: Quantize = None,
    compile: Compile = False,
    tokenizer: TokenizerPath = None,
    show_tokens: ShowTokens = False,
) -> None:
    """Continue a text, printing it as it comes.

    The prompt comes out as it was given. What the model adds is made safe for a terminal, where control characters
    are shown as \\x1b; into a file or a pipe it goes unchanged.
    """
    text = read_text(prompt) if is_first() else ""
    if temperature is None:
        temperature = TINY_TEMPERATURE if checkpoint == "tiny" else 0.0
    model, tokens_of = load(checkpoint, tokenizer, device, dtype, quantize, compile)
    text = from_first(text)
    from decoding_llama3.inference.generator import Generator

    speed = Speed()
    generator = Generator(model, compile, report=speed.report)
    ids = tokens_of.encode(text, bos=True)
    seed = seed_of(seed, temperature)
    stream = generator.generate(ids, tokens, temperature, top_p, tokens_of.stop_ids, seed)
    write(text)
    try:
        for piece in tokens_of.decode_stream(noted(show_tokens, tokens_of, ids, speed.timed(stream, len(ids)))):
            write_generated(piece)
    finally:
        write("\n")
    note(speed.line())


def read_text(prompt: str) -> str:
    """The prompt itself, or standard input for '-', byte for byte; raises ValueError for what is not UTF-8."""
    if prompt != "-":
        return check_text("the prompt", prompt)
    given = sys.stdin.buffer.read()
    try:
        return given.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{given[error.start]:02x} at position {error.start}"
        raise ValueError(f"standard input is not UTF-8 text ({found}): convert it to UTF-8") from None


def check_text(what: str, text: str) -> str:
    """`text`, or ValueError if bytes that are not UTF-8 were typed: Python keeps them as half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not UTF-8 text at position {error.start}: convert it to UTF-8") from None
    return text


def seed_of(seed: int | None, temperature: float) -> int | None:
    """The seed given, or one at random, which is printed so that the text can be had again; None for no draws."""
    from decoding_llama3.inference.arguments import check_seed

    if seed is None and temperature > 0:
        seed = from_first(secrets.randbelow(2**32))
        note(f"seed {seed}")
    return check_seed(seed)
