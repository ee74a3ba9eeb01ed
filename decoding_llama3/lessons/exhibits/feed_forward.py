"""Part 6 - exhibits of the bug museum on the feed-forward network."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, tale
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def exchanged(layer: nn.Module) -> None:
    ff: Any = layer.feed_forward
    ff.w_gate, ff.w_up = ff.w_up, ff.w_gate


def _exchanged(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = copy.deepcopy(model), tale(tokenizer)
    for layer in broken.layers:
        exchanged(layer)
    yield f"every shape fits; loss {loss_of(model, tokens):.1f} before, {loss_of(broken, tokens):.1f} now"
    right = (broken(tokens) - model(tokens))[0].abs().amax(dim=-1) < 1e-3
    yield f"right logits, even after the first token: {int(right.sum())} of {len(right)}"


def hidden_dim_with_rest(hidden: int, multiple_of: int) -> int:
    return multiple_of * ((hidden + multiple_of - 1) % multiple_of)


def _too_wide(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    for hidden, multiple in ((14_198, 1024), (10_922, 256)):
        width = hidden_dim_with_rest(hidden, multiple)
        yield f"a width of {hidden:,}, in multiples of {multiple:,}, becomes {width:,}"
    parameters = 3 * 4096 * hidden_dim_with_rest(14_198, 1024)
    yield f"one feed-forward network of the 8B would have {parameters / 1e9:.0f} · 10⁹ parameters"


EXHIBITS = {
    "exchanged": Exhibit(
        _exchanged,
        ("w_up and w_down are exchanged", "w_gate and w_up are exchanged", "SiLU is missing"),
        "b",
        "Both have one shape. w_down has another, so exchanging that one would not load. Names like w1 and w3 "
        "breed this fault.",
        exchanged,
    ),
    "too_wide": Exhibit(
        _too_wide,
        ("it rounds down", "the multiplier is applied twice", "% stands where // belongs"),
        "c",
        "The rest of a division, times the multiple, is any number at all.",
        hidden_dim_with_rest,
    ),
}
