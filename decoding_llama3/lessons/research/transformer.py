"""Part 7 - research: the part that carries a word."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from decoding_llama3.inspect.probe import intercepted
from decoding_llama3.lessons.practice.research import Research, tale_until, tale_word_losses
from decoding_llama3.transformer import Transformer

# Tokens of the tale, by the number of the one that they follow, each of which one part carries.
WORDS = (19, 37, 39, 60, 77, 87, 90, 125, 131, 138, 161)
PARTS = [(part, block) for part in ("attention", "feed_forward") for block in range(1, 6)]
READS = {"attention": "attention.wo", "feed_forward": "feed_forward.w_down"}


def _part_task(place: int) -> str:
    before, word = tale_until(place)
    return (
        f"which one of the ten parts of blocks 1 to 5, silenced, lowers the probability of {word!r} after "
        f"{before!r} most? (block 0 is left out: without it nearly every word is lost)"
    )


@contextmanager
def _a_part_per_row(model: Transformer, place: int) -> Iterator[None]:
    """Row i of a batch runs without part i: its last matrix reads zeros."""
    with ExitStack() as stack:
        for i, (part, number) in enumerate(PARTS):
            kept = (torch.arange(len(PARTS)) != i)[:, None, None]
            name = f"layers.{number}.{READS[part]}"
            stack.enter_context(intercepted(model, [name], lambda x, kept=kept: x * kept))
        yield


part = Research(
    "part",
    WORDS,
    _part_task,
    'a part and its block, such as ("attention", 3),',
    PARTS,
    _a_part_per_row,
    tale_word_losses,
    (
        "`probe.intercepted(model, ['layers.3.attention.wo'], torch.zeros_like)` silences one.",
        "What writes most to a word's logit is not always what is missed most: silence it.",
    ),
)
