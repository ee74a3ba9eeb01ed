"""Part 7 - solutions of the exercises on the whole model, and the check of the graded one."""

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_block(block, x, positions, rotation, mask=None, cache=None):
    h = x + block.attention(block.attention_norm(x), positions, rotation, mask, cache)
    return h + block.feed_forward(block.ffn_norm(h))


def my_top_p(probabilities, p):
    falling, order = probabilities.sort(descending=True)
    stays = falling.cumsum(dim=-1) - falling <= p
    return torch.zeros_like(stays).scatter(0, order, stays)


def my_generate(model, ids, n):
    caches = model.make_caches(1, len(ids) + n)
    new, tokens, start = [], ids, 0
    while len(new) < n:
        positions = torch.arange(start, start + len(tokens))
        logits = model(torch.tensor([tokens]), positions, caches)
        start += len(tokens)
        tokens = [int(logits[0, -1].argmax())]
        new += tokens
    return new


def my_tokens_per_second(config, bytes_per_weight, n_tokens, bandwidth):
    weights = config.n_params
    if not config.tie_embeddings:
        weights -= config.vocab_size * config.dim
    return bandwidth / (weights * bytes_per_weight + config.kv_cache_bytes(n_tokens))


def _speed(name: str, bytes_per_weight: float, n_tokens: int, bandwidth: float) -> tuple:
    return LlamaConfig.from_preset(name), bytes_per_weight, n_tokens, bandwidth


TIED = "    if not config.tie_embeddings:\n        weights -= config.vocab_size * config.dim\n"
TOKENS_PER_SECOND = SameAs(
    my_tokens_per_second,
    cases=lambda: [
        Case(_speed("llama3-8b", 2, 8192, 1e12), tolerance=1e-6),
        Case(_speed("llama3.2-1b", 2, 8192, 1e12), "where embedding and output are one table", tolerance=1e-6),
        Case(_speed("llama3-70b", 1, 0, 3.35e12), "in int8 and without a text", tolerance=1e-6),
        Case(_speed("llama2-7b", 0.5, 4096, 1e11), "with four bits per weight", tolerance=1e-6),
    ],
    smallest=lambda: [_speed("tiny", 2, 100, 1e9)],
    known={
        "the embedding is counted; of it one row is read": ((TIED, ""),),
        "where embedding and output are one table it is read whole, for the output": (
            (TIED, "    weights -= config.vocab_size * config.dim\n"),
        ),
        "keys and values are not counted": ((" + config.kv_cache_bytes(n_tokens)", ""),),
        "keys and values of one token are counted": (("kv_cache_bytes(n_tokens)", "kv_cache_bytes(1)"),),
        "keys and values are counted in bytes_per_weight; they are bfloat16": (
            ("config.kv_cache_bytes(n_tokens)", "config.kv_cache_bytes(n_tokens) * bytes_per_weight / 2"),
        ),
        "the weights' bytes are not counted, only their number": ((" * bytes_per_weight", ""),),
        "seconds per token are returned": (
            (
                "bandwidth / (weights * bytes_per_weight + config.kv_cache_bytes(n_tokens))",
                "(weights * bytes_per_weight + config.kv_cache_bytes(n_tokens)) / bandwidth",
            ),
        ),
        "all n_tokens tokens are written, which takes as many times longer; one was asked": (
            ("bandwidth / (", "n_tokens * bandwidth / ("),
        ),
        "bits are counted, not bytes": (("bandwidth / (", "bandwidth / 8 / ("),),
        "each weight is read twice, for a product and a sum": (("weights * bytes", "2 * weights * bytes"),),
        "the output's table is left out too": (
            ("config.vocab_size * config.dim", "2 * config.vocab_size * config.dim"),
        ),
        "keys alone are counted, without values": (
            ("config.kv_cache_bytes(n_tokens)", "config.kv_cache_bytes(n_tokens) / 2"),
        ),
        "the cache of one block is counted": (
            ("config.kv_cache_bytes(n_tokens)", "config.kv_cache_bytes(n_tokens) / config.n_layers"),
        ),
        "every query is counted as if it had a key of its own": (
            ("config.kv_cache_bytes(n_tokens)", "config.kv_cache_bytes(n_tokens) * config.queries_per_kv"),
        ),
        "the weights are read once for each token of the text; they are read once for the new one": (
            ("weights * bytes_per_weight", "weights * bytes_per_weight * max(n_tokens, 1)"),
        ),
        "two speeds are added up; add the bytes, then divide": (
            (
                "bandwidth / (weights * bytes_per_weight + config.kv_cache_bytes(n_tokens))",
                "bandwidth / (weights * bytes_per_weight) + bandwidth / max(config.kv_cache_bytes(n_tokens), 1)",
            ),
        ),
        "the feed-forward has three matrices, two are counted": (
            (
                "weights = config.n_params",
                "weights = config.n_params - config.n_layers * config.dim * config.hidden_dim",
            ),
        ),
        "the number is rounded": (("bandwidth / (", "bandwidth // ("),),
    },
    shows_right=False,
)

CHECKS = {"tokens_per_second": TOKENS_PER_SECOND}
