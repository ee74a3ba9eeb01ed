"""Part 5 - the exercise on the key/value cache."""

from collections.abc import Callable
from functools import wraps

import torch

from decoding_llama3.kv_cache import KVCache
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import solution
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs


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
            "the positions count one too few: they start at 0": (
                ("index_copy_(2, positions, keys)", "index_copy_(2, (positions - 1) % self.keys.shape[2], keys)"),
                (
                    "index_copy_(2, positions, values)",
                    "index_copy_(2, (positions - 1) % self.keys.shape[2], values)",
                ),
            ),
            "the store itself grows; its length is fixed, and the new ones go to their positions": (
                ("self.keys.index_copy_(2, positions, keys)", "self.keys = torch.cat((self.keys, keys), dim=2)"),
                (
                    "self.values.index_copy_(2, positions, values)",
                    "self.values = torch.cat((self.values, values), dim=2)",
                ),
            ),
            "the store is replaced by the new keys and values; what was there is needed": (
                ("self.keys.index_copy_(2, positions, keys)", "self.keys = keys"),
                ("self.values.index_copy_(2, positions, values)", "self.values = values"),
            ),
            "what was there is wiped first; the earlier tokens are needed": (
                ("self.keys.index_copy_", "self.keys.zero_().index_copy_"),
                ("self.values.index_copy_", "self.values.zero_().index_copy_"),
            ),
            "only the first position is written": (
                ("index_copy_(2, positions, keys)", "index_copy_(2, positions[:1], keys[:, :, :1])"),
                ("index_copy_(2, positions, values)", "index_copy_(2, positions[:1], values[:, :, :1])"),
            ),
            "only the first sequence of the batch is written": (
                ("self.keys.index_copy_(2, positions, keys)", "self.keys[:1].index_copy_(2, positions, keys[:1])"),
                (
                    "self.values.index_copy_(2, positions, values)",
                    "self.values[:1].index_copy_(2, positions, values[:1])",
                ),
            ),
            "keys and values come back as one tensor; two were asked": (
                ("return self.keys, self.values", "return torch.stack((self.keys, self.values))"),
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
