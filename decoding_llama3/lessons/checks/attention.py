"""Part 5 - exercises on attention."""

from collections.abc import Callable, Iterator
from functools import wraps

import torch
from torch import Tensor

from decoding_llama3.attention import attend_explicitly
from decoding_llama3.config import LlamaConfig
from decoding_llama3.kv_cache import KVCache
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


def _filled_cache(length=6, head_dim=2, heads=2, batch=1, n_filled=0, dtype=torch.float32) -> KVCache:
    cache = KVCache(batch, heads, length, head_dim, dtype=dtype)
    filled = random(batch, heads, n_filled, head_dim, seed=5).to(dtype)
    cache.update(torch.arange(n_filled), filled, -filled)
    return cache


def update_inputs(
    positions: list[int], numbers: Callable = random, dtype: torch.dtype = torch.float32, **sizes: int
) -> tuple:
    cache = _filled_cache(dtype=dtype, **sizes)
    shape = (*cache.keys.shape[:2], len(positions), cache.keys.shape[3])
    return cache, torch.tensor(positions), numbers(*shape).to(dtype), numbers(*shape, seed=1).to(dtype)


def with_contents(update: Callable) -> Callable:
    """The result, and what the cache holds afterwards."""

    @wraps(update)
    def call(cache, positions, keys, values):
        result = update(cache, positions, keys, values)
        return [*result, cache] if isinstance(result, (tuple, list)) else result

    return call


update = Exercise(
    SameAs(
        KVCache.update,
        cases=lambda: [
            Case(update_inputs([0, 1, 2])),
            Case(update_inputs([3, 4], n_filled=3), "for a second chunk, which stands after the first"),
            Case(update_inputs([5], n_filled=5, batch=2, heads=3, head_dim=4), "for one token more"),
            Case(update_inputs([2, 0], n_filled=3), "where positions are written again"),
            Case(update_inputs([3], n_filled=3, dtype=torch.bfloat16), "in bfloat16"),
        ],
        smallest=lambda: [
            update_inputs([0], small, heads=1, length=2),
            update_inputs([1], small, heads=1, length=2, n_filled=1),
        ],
        known={
            "keys are written and values are not": (("self.values.index_copy_(2, positions, values)", ""),),
            "values are written and keys are not": (("self.keys.index_copy_(2, positions, keys)", ""),),
            "everything is written at the beginning; `positions` says where": (
                ("index_copy_(2, positions, keys)", "narrow(2, 0, keys.shape[2]).copy_(keys)"),
                ("index_copy_(2, positions, values)", "narrow(2, 0, values.shape[2]).copy_(values)"),
            ),
            "only the new keys and values are returned; attention needs all that the cache holds": (
                ("return self.keys, self.values", "return keys, values"),
            ),
            "what was there is added to, not replaced": (
                ("self.keys.index_copy_(2", "self.keys.index_add_(2"),
                ("self.values.index_copy_(2", "self.values.index_add_(2"),
            ),
            "keys and values are exchanged": (("return self.keys, self.values", "return self.values, self.keys"),),
            "only the filled slots are returned; the whole store is asked: the mask hides empty slots": (
                (
                    "return self.keys, self.values",
                    "return self.keys[:, :, : positions.max() + 1], self.values[:, :, : positions.max() + 1]",
                ),
            ),
            "a new tensor is returned and the cache itself stays as it was: the next step would find nothing": (
                ("self.keys.index_copy_(2", "new = self.keys.index_copy(2"),
                ("self.values.index_copy_(2", "newer = self.values.index_copy(2"),
                ("return self.keys, self.values", "return new, newer"),
            ),
            "the new ones are joined to the end of the store, which has a fixed length": (
                ("self.keys.index_copy_(2, positions, keys)", "new = torch.cat((self.keys, keys), dim=2)"),
                (
                    "self.values.index_copy_(2, positions, values)",
                    "newer = torch.cat((self.values, values), dim=2)",
                ),
                ("return self.keys, self.values", "return new, newer"),
            ),
            "the positions count one too many: they start at 0": (
                ("index_copy_(2, positions, keys)", "index_copy_(2, positions + 1, keys)"),
                ("index_copy_(2, positions, values)", "index_copy_(2, positions + 1, values)"),
            ),
            "the positions are used on the axis of the heads; the tokens are axis 2": (
                ("index_copy_(2, positions, keys)", "index_copy_(1, positions, keys)"),
                ("index_copy_(2, positions, values)", "index_copy_(1, positions, values)"),
            ),
        },
        observe=with_contents,
    ),
    solution("attention", "update"),
    (
        "`cache.keys` is (batch, kv_heads, length, head_dim), and zero where nothing was written yet.",
        "`cache.keys[:, :, positions] = keys` writes a whole chunk; a new tensor would be forgotten.",
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
