"""Part 4 - research: the pair that a block needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from decoding_llama3.lessons.practice.research import Research, tale_losses
from decoding_llama3.rope import apply_rope as rotated
from decoding_llama3.transformer import Transformer

PAIRS = list(range(16))


@contextmanager
def _a_pair_per_row(model: Transformer, block: int) -> Iterator[None]:
    """Row i of a batch does not rotate pair i in this block."""
    still = F.one_hot(torch.tensor(PAIRS)).bool().repeat_interleave(2, dim=1)[:, None, None]
    attention: Any = model.layers[block].attention
    attention.rotate = lambda x, rotation: torch.where(still, x, rotated(x, rotation))
    try:
        yield
    finally:
        del attention.rotate


pair = Research(
    "pair",
    (1, 2, 3, 4, 5),
    lambda block: (
        f"which of the 16 pairs, no longer rotated in the queries and keys of block {block}, raises the mean "
        "loss of the tale most? (`model.layers[block].attention.rotate` is the function that is called: put yours "
        "there)"
    ),
    "a pair from 0 to 15",
    PAIRS,
    _a_pair_per_row,
    tale_losses,
    (
        "Your function calls the package's `apply_rope` and puts two features back: `torch.where`, or a copy.",
        "Set `attention.rotate = yours`, measure with `probe.loss_of`, then `del attention.rotate`; 16 times.",
    ),
)
