"""Part 5 - exercises on attention."""

from collections.abc import Iterator

import torch
from torch import Tensor

from decoding_llama3.attention import attend_explicitly
from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.checks.kv_cache import update as update
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.lessons.research.attention import head as head

REPEAT = "k, v = repeat_for_queries(q, k), repeat_for_queries(q, v)"
MASKED = 'scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32)'
CAUSAL = "mask = causal_mask(torch.arange(q.shape[2], device=q.device), k.shape[2])"
TILE = "x.repeat(1, q.shape[1] // x.shape[1], 1, 1)"


def later_queries(seq: int, length: int) -> Tensor:
    """The mask of the last `seq` of `length` tokens, as with a cache."""
    return torch.arange(length) <= torch.arange(length - seq, length)[:, None]


def attention_inputs(
    heads: tuple[int, int] = (6, 3),
    seq: int = 4,
    length: int = 7,
    head_dim: int = 16,
    masked: bool = True,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
) -> tuple:
    """Queries, keys, values and a mask. The queries are large, so that the scale shows."""
    q = 2 * random(batch, heads[0], seq, head_dim).to(dtype)
    k, v = (random(batch, heads[1], length, head_dim, seed=seed).to(dtype) for seed in (1, 2))
    return q, k, v, later_queries(seq, length) if masked else None


def _attend_cases() -> list[Case]:
    upside_down = torch.arange(4) >= torch.arange(4)[:, None]
    q, k, v, _ = attention_inputs(length=4)
    return [
        Case(attention_inputs()),
        Case((q, k, v, upside_down), "with a mask that is not causal: use the one that it is given"),
        Case(
            attention_inputs(seq=5, length=5, masked=False),
            "with mask=None, which means a whole sequence, causally",
        ),
        Case(attention_inputs(heads=(4, 4), seq=3, length=6), "where every query has a key of its own"),
        Case(attention_inputs(heads=(4, 2), head_dim=8, dtype=torch.bfloat16), "in bfloat16"),
    ]


def _smallest_attend() -> Iterator[tuple]:
    for heads, seq, length in (
        ((1, 1), 1, 2),
        ((1, 1), 2, 2),
        ((2, 1), 1, 1),
        ((2, 1), 2, 2),
        ((4, 2), 1, 2),
        ((4, 2), 2, 3),
    ):
        q, k, v = (
            small(1, heads[0], seq, 2),
            small(1, heads[1], length, 2, seed=1),
            small(1, heads[1], length, 2, seed=2),
        )
        yield q, k, v, later_queries(seq, length)
        if seq == length:
            yield q, k, v, None


attend = Exercise(
    SameAs(
        attend_explicitly,
        _attend_cases,
        _smallest_attend,
        adapt=lambda explicitly: lambda q, k, v, mask: explicitly(q, k, v, mask)[0],
        known={
            "the mask is not used: every query looks into the future": (
                ('.masked_fill(~mask, float("-inf"))', ""),
            ),
            "the mask is the wrong way round: it is True where a query may attend": (("~mask", "mask"),),
            "the mask comes after the softmax: the weights no longer add up to 1": (
                (MASKED, "scores.softmax(dim=-1, dtype=torch.float32).masked_fill(~mask, 0)"),
            ),
            "what is masked gets a score of about 0, as by a product with the mask: exp(0) is 1, not 0": (
                (MASKED, "(scores * mask).softmax(dim=-1, dtype=torch.float32)"),
            ),
            "the mask is added as 0 and 1: it must take a score to minus infinity": (
                (MASKED, "(scores + mask).softmax(dim=-1, dtype=torch.float32)"),
            ),
            "keys and values are not repeated: each of them serves several queries": ((REPEAT, ""),),
            "keys and values are tiled (0 1 2 0 1 2); neighbours share (0 0 1 1 2 2): repeat_interleave": (
                (REPEAT, f"k, v = ({TILE} for x in (k, v))"),
            ),
            "the values are tiled (0 1 2 0 1 2), the keys are repeated rightly (0 0 1 1 2 2)": (
                (REPEAT, f"k, v = repeat_for_queries(q, k), [{TILE} for x in (v,)][0]"),
            ),
            "the keys are tiled (0 1 2 0 1 2), the values are repeated rightly (0 0 1 1 2 2)": (
                (REPEAT, f"k, v = [{TILE} for x in (k,)][0], repeat_for_queries(q, v)"),
            ),
            "the scores are not scaled: divide them by the root of head_dim": ((" / q.shape[-1] ** 0.5", ""),),
            "the scores are divided by head_dim, not by its root": (("** 0.5", "** 1"),),
            "the scores are multiplied by the root of head_dim; it divides": (("/ q.shape[-1]", "* q.shape[-1]"),),
            "the scores are divided by the root of dim, of all heads together; each head has head_dim": (
                ("q.shape[-1] ** 0.5", "(q.shape[1] * q.shape[-1]) ** 0.5"),
            ),
            "the scores are divided by the root of the number of keys; it is the root of head_dim": (
                ("q.shape[-1] ** 0.5", "k.shape[-2] ** 0.5"),
            ),
            "the scale comes after the softmax: it belongs on the scores": (
                (" / q.shape[-1] ** 0.5", ""),
                ("weights @ v, weights", "weights / q.shape[-1] ** 0.5 @ v, weights"),
            ),
            "the softmax runs over the queries (axis -2); the weights of one query add up to 1 over its keys": (
                ("dim=-1", "dim=-2"),
            ),
            "the softmax is missing": ((".softmax(dim=-1, dtype=torch.float32)", ""), ('float("-inf")', "0")),
            "it always makes a causal mask from position 0; use the mask it is given": (
                ("if mask is None:", "if True:"),
            ),
            "with a mask of its own it ignores that the queries are the last tokens: use the mask it is given": (
                (
                    f"if mask is None:\n        {CAUSAL}",
                    "mask = causal_mask(torch.arange(k.shape[2])[-q.shape[2]:], k.shape[2])",
                ),
            ),
            "mask=None is not answered: it means a whole sequence, in which no token sees a later one": (
                ("if mask is None:", "if False:"),
            ),
            "with mask=None a token also sees the next one: the diagonal is the last that it may see": (
                (CAUSAL, "mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(1)"),
            ),
            "with mask=None a token does not see itself: the diagonal belongs to what it may see": (
                (CAUSAL, "mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(-1)"),
            ),
            "the scores are divided by the root of the number of heads; it is the root of head_dim": (
                ("q.shape[-1] ** 0.5", "q.shape[1] ** 0.5"),
            ),
            "the heads are joined already; here each keeps an axis of its own": (
                ("weights @ v, weights", "(weights @ v).transpose(1, 2).flatten(-2), weights"),
            ),
            "with mask=None nothing is masked: it means a whole sequence, in which no token sees a later one": (
                (
                    "mask = causal_mask(torch.arange(q.shape[2], device=q.device), k.shape[2])",
                    "mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)",
                ),
            ),
            "the weights are returned; asked is what they fetch, weights @ v": (
                ("weights @ v, weights", "weights, v"),
            ),
            "the weights fetch keys; they fetch values": (("weights @ v", "weights @ k"),),
            "the result is float32 where the inputs are not: give it back in the dtype of q": (
                ("weights @ v, weights", "weights.float() @ v.float(), weights"),
            ),
        },
    ),
    solution("attention", "attend"),
    (
        "Repeat keys and values for the queries that share them; scores; scale; mask; softmax; then fetch.",
        "`scores.masked_fill(~mask, float('-inf'))` before the softmax over the last axis. `None` stands for the "
        "mask of a whole sequence: True on and below the diagonal.",
        "`k.repeat_interleave(n, dim=1)` gives 0 0 1 1, `k.repeat(1, n, 1, 1)` gives 0 1 0 1.",
    ),
)


pool_heads = Exercise(
    Graded("attention", "pool_heads", lambda: (random(6 * 4, 5), 6, 2)),
    solution("attention", "pool_heads"),
    (
        "Rows of `wk`: head 0 first, then head 1. Give the heads an axis, and those that are pooled another one.",
        "With four axes in the right order, the mean runs over one of them.",
    ),
    graded=True,
)

n_users = Exercise(
    Graded("attention", "n_users", lambda: (LlamaConfig.from_preset("llama3-8b"), 8192, 64 * 10**9)),
    solution("attention", "n_users"),
    (
        "What one token leaves in one block: a key and a value for each of the heads that have them.",
        "A bfloat16 number has two bytes. A user who fits by half does not fit.",
    ),
    graded=True,
)
