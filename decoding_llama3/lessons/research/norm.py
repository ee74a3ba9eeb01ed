"""Part 3 - research: the feature that carries a word."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from decoding_llama3.inspect.probe import intercepted
from decoding_llama3.lessons.practice.research import Research, tale_ids, tale_until
from decoding_llama3.transformer import Transformer

# Tokens of the tale, by the number of the one that they follow, each of which one feature carries.
WORDS = (19, 37, 77, 84, 119, 125)
FEATURES = list(range(256))


def _feature_task(place: int) -> str:
    before, word = tale_until(place)
    return (
        f"which of the 256 features, set to zero after the last norm, lowers the probability of {word!r} after "
        f"{before!r} most? (`probe.intercepted(model, ['output'], change)` lets the output read change(x) for x)"
    )


def _a_feature_per_row(model: Transformer, place: int) -> AbstractContextManager:
    """Row i of a batch runs without feature i after the last norm."""
    kept = ~torch.eye(len(FEATURES), dtype=torch.bool)[:, None]
    return intercepted(model, ["output"], lambda x: x * kept)


def _losses_after_the_last_norm(model: Transformer, place: int, n: int) -> Tensor:
    """Up to the last norm all rows are the same, so one is computed."""
    ids = tale_ids()
    hidden = model.hidden(torch.tensor([ids[: place + 1]]))[:, -1:].expand(n, -1, -1)
    return -model.output(hidden)[:, 0].log_softmax(-1)[:, ids[place + 1]]


feature = Research(
    "feature",
    WORDS,
    _feature_task,
    "a feature from 0 to 255",
    FEATURES,
    _a_feature_per_row,
    _losses_after_the_last_norm,
    (
        "`model(tokens)[0, -1].softmax(-1)[word]` is the probability: ask it inside `with probe.intercepted()`.",
        "256 runs. One feature is loud in every token: is it the one for your word, too?",
    ),
)
