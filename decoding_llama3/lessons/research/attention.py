"""Part 5 - research: the head that carries a word."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from decoding_llama3.inspect.probe import intercepted
from decoding_llama3.lessons.practice.research import Research, tale_until, tale_word_losses
from decoding_llama3.transformer import Transformer

# Tokens of the tale, by the number of the one that they follow, each of which one head carries.
WORDS = (37, 67, 90, 125, 131, 138)
HEADS = [(block, head) for block in range(6) for head in range(8)]


def _head_task(place: int) -> str:
    before, word = tale_until(place)
    return (
        f"in the tale, which head, silenced, lowers the probability of {word!r} after {before!r} most? "
        "(`heads.without_heads(model, [(block, head)])` silences one)"
    )


@contextmanager
def _a_head_per_row(model: Transformer, place: int) -> Iterator[None]:
    """Row i of a batch runs without head i of HEADS: wo reads zeros in its place."""
    with ExitStack() as stack:
        for block in range(6):
            kept = torch.tensor([[(block, head) != lost for head in range(8)] for lost in HEADS])
            kept = kept.repeat_interleave(model.config.head_dim, dim=1)[:, None]
            name = f"layers.{block}.attention.wo"
            stack.enter_context(intercepted(model, [name], lambda x, kept=kept: x * kept))
        yield


head = Research(
    "head",
    WORDS,
    _head_task,
    "a block from 0 to 5 and a head from 0 to 7, such as (3, 1),",
    HEADS,
    _a_head_per_row,
    tale_word_losses,
    (
        "`model(tokens)[0, -1].softmax(-1)[word]` is the probability; run it inside `with without_heads(...)`.",
        "Two loops, 48 runs. Look at the change of the probability's logarithm, and at the second largest too.",
    ),
)
