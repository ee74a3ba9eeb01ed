"""Part 5 - solutions of the exercises on attention, and the checks of the graded ones."""

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_attend(q, k, v, mask=None):
    queries_per_key = q.shape[1] // k.shape[1]
    k = k.repeat_interleave(queries_per_key, dim=1)
    v = v.repeat_interleave(queries_per_key, dim=1)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    return weights.type_as(q) @ v


def my_update(cache, positions, keys, values):
    cache.keys[:, :, positions] = keys
    cache.values[:, :, positions] = values
    return cache.keys, cache.values


def my_pool_heads(weight, n_heads, n_pooled):
    heads = weight.unflatten(0, (n_pooled, n_heads // n_pooled, -1))
    return heads.mean(dim=1).flatten(0, 1)


def my_n_users(config, n_tokens, free_bytes):
    bytes_per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2
    return int(free_bytes // (bytes_per_token * n_tokens))


POOL_HEADS = SameAs(
    my_pool_heads,
    cases=lambda: [
        Case((random(6 * 4, 5), 6, 2)),
        Case((random(6 * 4, 5), 6, 6), "where each head stays alone"),
        Case((random(6 * 4, 5), 6, 1), "where all become one"),
        Case((random(8 * 4, 4, dtype=torch.bfloat16), 8, 2), "in bfloat16"),
    ],
    smallest=lambda: ((small(n * 2, 2), n, pooled) for n, pooled in ((2, 1), (4, 2))),
    known={
        "heads far apart are pooled (0 with 2); those that will share are neighbours (0 with 1)": (
            ("(n_pooled, n_heads // n_pooled, -1)", "(n_heads // n_pooled, n_pooled, -1)"),
            ("dim=1", "dim=0"),
        ),
        "the heads are added up; their mean keeps the size of the keys": ((".mean(", ".sum("),),
        "the first head of each is taken; asked is the mean of all that will share": (
            (".mean(dim=1)", ".select(1, 0)"),
        ),
        "the last head of each is taken; asked is the mean of all that will share": (
            (".mean(dim=1)", ".select(1, -1)"),
        ),
        "the rows are read as (head_dim, heads); head 0 has the first head_dim rows, head 1 the next": (
            ("(n_pooled, n_heads // n_pooled, -1)", "(-1, n_pooled, n_heads // n_pooled)"),
            ("dim=1", "dim=2"),
        ),
        "the features of one head are averaged, not the heads": (("dim=1", "dim=2"),),
        "n_pooled is taken for the number of heads that share": (
            ("(n_pooled, n_heads // n_pooled, -1)", "(n_heads // n_pooled, n_pooled, -1)"),
        ),
        "the sum is divided by all heads, not by those that are pooled together": (
            (".mean(dim=1)", ".sum(dim=1).div(n_heads)"),
        ),
        "the pooled heads are repeated again; fewer heads is the point": (
            (".mean(dim=1)", ".mean(dim=1).repeat_interleave(n_heads // n_pooled, dim=0)"),
        ),
        "the largest of the heads is taken; asked is the mean": ((".mean(dim=1)", ".amax(dim=1)"),),
        "only two neighbours are pooled, however many share": ((".mean(dim=1)", "[:, :2].mean(dim=1)"),),
        "heads keep an axis of their own; the result has rows again, head 0 first": ((".flatten(0, 1)", ""),),
        "the columns are cut into heads; heads are rows of wk": (("weight.unflatten(0,", "weight.unflatten(1,"),),
    },
    kept=("weight",),
)

N_USERS = SameAs(
    my_n_users,
    cases=lambda: [
        Case((LlamaConfig.from_preset("llama3-8b"), 8192, 80 * 10**9 - 16 * 10**9)),
        Case((LlamaConfig.from_preset("llama2-7b"), 4096, 10**10)),
        Case((LlamaConfig.from_preset("llama3.2-1b"), 1000, 10**8)),
        Case((LlamaConfig.from_preset("llama3-70b"), 8192, 10**9), "where not even one fits"),
        Case((LlamaConfig.from_preset("mistral-7b-v0.1"), 1, 131_072), "where one fits exactly"),
    ],
    smallest=lambda: [(LlamaConfig.from_preset("tiny"), n, 10_000) for n in (1, 2)],
    known={
        "half is counted: each token leaves a key and a value, and a bfloat16 number has two bytes": (
            ("2 * config.n_layers", "config.n_layers"),
        ),
        "queries are counted, too; they are not kept": (
            (
                "2 * config.n_layers * config.n_kv_heads",
                "config.n_layers * (config.n_heads + 2 * config.n_kv_heads)",
            ),
        ),
        "one user too few: no card needs one in reserve": (
            (
                "int(free_bytes // (bytes_per_token * n_tokens))",
                "int(free_bytes // (bytes_per_token * n_tokens)) - 1",
            ),
        ),
        "brackets are missing: divide by the whole product": (
            (
                "int(free_bytes // (bytes_per_token * n_tokens))",
                "int(free_bytes // 2 * config.n_layers * config.n_kv_heads * config.head_dim * 2 * n_tokens)",
            ),
        ),
        "all query heads are counted; only n_kv_heads have keys and values": (("n_kv_heads", "n_heads"),),
        "one block is counted; each has a cache of its own": (("2 * config.n_layers *", "2 *"),),
        "one head is counted": (("config.n_kv_heads * ", ""),),
        "dim is counted for each head; a head has head_dim": (("config.head_dim", "config.dim"),),
        "a number of bfloat16 has two bytes, four are counted": (("head_dim * 2", "head_dim * 4"),),
        "one token is counted; a user has n_tokens": ((" * n_tokens", ""),),
        "the number is rounded up or to the nearest; a user who fits by half does not fit": (
            (
                "int(free_bytes // (bytes_per_token * n_tokens))",
                "round(free_bytes / (bytes_per_token * n_tokens))",
            ),
        ),
        "the number is rounded up; a user who fits by half does not fit": (
            ("int(free_bytes // (bytes_per_token * n_tokens))", "-(-free_bytes // (bytes_per_token * n_tokens))"),
        ),
        "a part of a user is left in the number: round down": (
            ("int(free_bytes // (bytes_per_token * n_tokens))", "free_bytes / (bytes_per_token * n_tokens)"),
        ),
        "one user too many: the next whole number is taken": (
            (
                "int(free_bytes // (bytes_per_token * n_tokens))",
                "int(free_bytes // (bytes_per_token * n_tokens)) + 1",
            ),
        ),
    },
    shows_right=False,
)

CHECKS = {"pool_heads": POOL_HEADS, "n_users": N_USERS}
