"""Part 6 - research: a feature and its word."""

from contextlib import AbstractContextManager

import torch

from decoding_llama3.inspect.probe import intercepted
from decoding_llama3.lessons.practice.research import Research, opening_losses
from decoding_llama3.transformer import Transformer

FEATURES = list(range(768))


def _a_feature_per_row(model: Transformer, block: int) -> AbstractContextManager:
    """Row i of a batch runs without feature i of this block's feed-forward network."""
    kept = ~torch.eye(len(FEATURES), dtype=torch.bool)[:, None]
    return intercepted(model, [f"layers.{block}.feed_forward.w_down"], lambda x: x * kept)


silenced = Research(
    "silenced",
    (2, 3, 4, 5),
    lambda block: (
        f"which of the 768 features of the feed-forward network in block {block}, silenced, lowers the "
        "probability of ' time' after 'Once upon a' most? "
        f"(`probe.intercepted(model, ['layers.{block}.feed_forward.w_down'], change)`)"
    ),
    "a feature from 0 to 767",
    FEATURES,
    _a_feature_per_row,
    opening_losses,
    (
        "w_down reads the products: `change` sets column `feature` of what it gets to zero.",
        "768 runs of four tokens, or one batch of 768 rows, each without another feature.",
    ),
)
