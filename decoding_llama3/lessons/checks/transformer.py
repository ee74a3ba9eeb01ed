"""Part 7 - exercises on the block, on generation and on the whole model."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.generator import generate as generated
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.lessons.practice.outcome import outcome_of
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.lessons.research.transformer import part as part
from decoding_llama3.transformer import Transformer, TransformerBlock


@cache
def small_model(dim: int = 16, n_layers: int = 2, seed: int = 0) -> Transformer:
    """A Llama with random weights, norms included, that differ enough to tell its parts apart."""
    config = LlamaConfig(
        dim=dim,
        n_layers=n_layers,
        n_heads=4,
        n_kv_heads=2,
        hidden_dim=24,
        vocab_size=40,
        norm_eps=1e-5,
        rope_theta=10_000.0,
        max_seq_len=64,
    )
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config).requires_grad_(False)
    for parameter in model.parameters():
        spread = 0.3 if parameter.dim() > 1 else 0.5
        parameter.normal_(mean=1.0 if parameter.dim() == 1 else 0.0, std=spread, generator=generator)
    return model


def block_inputs(batch: int, seq: int, start: int = 0, length: int | None = None) -> tuple:
    """A block, a stream, positions from `start` on, their rotation; with `length` a mask and a cache, too."""
    model = small_model()
    positions = torch.arange(start, start + seq)
    x = random(batch, seq, model.config.dim, seed=start)
    if length is None:
        return model.layers[0], x, positions, model.rotation_at(positions), None, None
    cache = model.make_caches(batch, length)[0]
    past = torch.arange(start)
    filled = random(batch, model.config.n_kv_heads, start, model.config.head_dim)
    cache.update(past, filled, -filled)
    mask = torch.arange(length) <= positions[:, None]
    return model.layers[0], x, positions, model.rotation_at(positions), mask, cache


H = "x + self.attention(self.attention_norm(x), positions, rotation, mask, cache)"
END = "h + self.feed_forward(self.ffn_norm(h))"
block = Exercise(
    SameAs(
        TransformerBlock.forward,
        cases=lambda: [
            Case(block_inputs(2, 5), tolerance=1e-3),
            Case(block_inputs(1, 2, start=3, length=8), "with a cache that holds earlier tokens", tolerance=1e-3),
        ],
        smallest=lambda: [block_inputs(1, 1)],
        known={
            "the second sum starts from x; it starts from the first sum": ((END, END.replace("h +", "x +")),),
            "both parts read x, side by side: the feed-forward reads what attention has written": (
                (END, "h + self.feed_forward(self.ffn_norm(x))"),
            ),
            "the norms stand after the sums: that is post-norm": (
                (H, "self.attention_norm(x + self.attention(x, positions, rotation, mask, cache))"),
                (END, "self.ffn_norm(h + self.feed_forward(h))"),
            ),
            "the norms stand after the parts, on what they write; they stand before them": (
                (H, "x + self.attention_norm(self.attention(x, positions, rotation, mask, cache))"),
                (END, "h + self.ffn_norm(self.feed_forward(h))"),
            ),
            "both parts read without a norm": (
                (H, "x + self.attention(x, positions, rotation, mask, cache)"),
                (END, "h + self.feed_forward(h)"),
            ),
            "attention reads without a norm": ((H, "x + self.attention(x, positions, rotation, mask, cache)"),),
            "the feed-forward reads without a norm": ((END, "h + self.feed_forward(h)"),),
            "one norm serves both parts; each has its own": (
                (END, "h + self.feed_forward(self.attention_norm(h))"),
            ),
            "the norms are exchanged": (
                (H, H.replace("attention_norm", "ffn_norm")),
                (END, "h + self.feed_forward(self.attention_norm(h))"),
            ),
            "the feed-forward comes first": (
                (H, "x + self.feed_forward(self.ffn_norm(x))"),
                (END, "h + self.attention(self.attention_norm(h), positions, rotation, mask, cache)"),
            ),
            "the residual is the normed copy: what is added to is x itself": (
                (
                    H,
                    H.replace("x +", "self.attention_norm(x) +"),
                ),
                (END, "self.ffn_norm(h) + self.feed_forward(self.ffn_norm(h))"),
            ),
            "the stream is replaced; each part adds to it": (
                (H, "self.attention(self.attention_norm(x), positions, rotation, mask, cache)"),
                (END, "self.feed_forward(self.ffn_norm(h))"),
            ),
            "the first sum is missing": (
                (H, "self.attention(self.attention_norm(x), positions, rotation, mask, cache)"),
            ),
            "the last sum is missing": ((END, "self.feed_forward(self.ffn_norm(h))"),),
            "x is added twice": ((END, f"x + {END}"),),
            "the cache is not handed on": (("mask, cache)\n", "mask)\n"),),
            "the mask is not handed on": (("mask, cache)\n", "None, cache)\n"),),
            "attention comes a second time, after the feed-forward": (
                (END, f"{END} + self.attention(self.attention_norm(h), positions, rotation, mask, cache)"),
            ),
            "the feed-forward is missing": ((END, "h"),),
            "attention is missing": ((H, "x"),),
        },
        kept=("x",),
    ),
    solution("transformer", "block"),
    (
        "Twice the same pattern: what was, plus a part that reads a normalised copy of it.",
        "The second line does not mention x. Attention wants all of (x, positions, rotation, mask, cache).",
    ),
)


def nucleus(probabilities: Tensor, p: float) -> Tensor:
    falling, order = probabilities.sort(descending=True)
    before = falling.cumsum(dim=-1) - falling
    return torch.zeros_like(before, dtype=torch.bool).scatter(0, order, before <= p)


PROBABILITIES = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625])  # exact in binary
BEFORE = "falling.cumsum(dim=-1) - falling"
BACK = "torch.zeros_like(before, dtype=torch.bool).scatter(0, order, before <= p)"
top_p = Exercise(
    SameAs(
        nucleus,
        cases=lambda: [
            Case((PROBABILITIES, 0.6)),
            Case((PROBABILITIES, 0.1), "where the first token alone exceeds p: it always stays"),
            Case((PROBABILITIES, 0.5), "where the sum is exactly p: a token stays until those before it exceed p"),
            Case((PROBABILITIES, 0.8), "for p 0.8"),
            Case((PROBABILITIES, 1.0), "where p is 1 and all stay"),
        ],
        smallest=lambda: [(torch.tensor([0.25, 0.75]), p) for p in (0.5, 0.75, 1.0)] + [(PROBABILITIES, 0.6)],
        known={
            "the answer is in falling order; it belongs in the order of the tokens": ((BACK, "before <= p"),),
            "each answer is fetched from the place `order` says; it must be put there: scatter": (
                (BACK, "(before <= p)[order]"),
            ),
            "the token with which the sum passes p is missing": (("before <= p", "before + falling <= p"),),
            "each probability is compared with p; their running sum is": ((BACK, "probabilities >= p"),),
            "the running sum is taken without sorting": ((BACK, "probabilities.cumsum(-1) - probabilities <= p"),),
            "the least probable tokens are taken first": (("descending=True", "descending=False"),),
            "where the sum is exactly p one token too few stays: it must exceed p": (
                ("before <= p", "before < p"),
            ),
            "it is the wrong way round: True is for what stays": (("before <= p", "before > p"),),
            "probabilities are returned; True or False was asked": (
                (BACK, "torch.zeros_like(before).scatter(0, order, falling * (before <= p))"),
            ),
            "numbers 0 and 1 are returned; True or False was asked": ((BACK, BACK + ".float()"),),
            "the numbers of the tokens are returned; a tensor of True and False was asked": (
                (BACK, "order[before <= p]"),
            ),
            "all stay": ((BACK, "torch.ones_like(probabilities, dtype=torch.bool)"),),
            "only the most probable stays": ((BACK, "probabilities == probabilities.max()"),),
            "all above p times the largest stay: that is min-p": (
                (BACK, "probabilities >= p * probabilities.max()"),
            ),
        },
        kept=("probabilities",),
    ),
    solution("transformer", "top_p"),
    (
        "Sort falling. Before each token, how much have those ahead of it together? `cumsum`, minus its own.",
        "`order` from the sort says where each token came from: `scatter` puts the answer back there.",
    ),
)


def package_greedy(model: Transformer, ids: list[int], n: int) -> list[int]:
    return list(generated(model, ids, n))


def _greedily(
    model, ids, n, *, positions=lambda at, seq: torch.arange(at, at + seq), pick=None, prompt=0, again=None
):
    """Greedy decoding with a fault: other positions, another choice, or the prompt returned too."""
    caches, new, tokens, at = model.make_caches(1, len(ids) + n), [], list(ids), 0
    while len(new) < n:
        logits = model(torch.tensor([tokens]), positions(at, len(tokens)), caches)[0]
        at += len(tokens)
        tokens = [int((pick or (lambda rows: rows[-1].argmax()))(logits))]
        new += tokens
        tokens = tokens if again is None else [again]
    return list(ids) * prompt + new


def reads_each_token_once(answer: Callable) -> None:
    """Raise `Mistake` where the model is given the earlier tokens again: that is what the cache saves."""
    model, given = small_model(seed=2), []
    counting = model.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0].shape[1]))
    try:
        outcome_of(lambda: answer(model, [3, 1, 4, 1, 5], 4), ())
    finally:
        counting.remove()
    if sum(given) > 5 + 4:
        raise Mistake(
            f"the tokens are right, but the model read {sum(given)} to write 4 after 5: with the caches it reads "
            "the prompt once, then one new token at a time"
        )


generate = Exercise(
    SameAs(
        package_greedy,
        cases=lambda: [
            Case((small_model(), [3, 1, 4, 1, 5], 8)),
            Case((small_model(seed=1), [7], 6), "for a prompt of one token"),
            Case((small_model(seed=1), [7, 2, 9], 1), "for a single new token"),
            Case((small_model(), [3, 1, 4], 0), "for no new token"),
        ],
        smallest=lambda: [(small_model(), [3], 2), (small_model(), [3, 1], 2), (small_model(), [3, 1], 4)],
        known={
            "each new token is read at position 0, or without the cache: it must go on where the cache ends": (
                lambda model, ids, n: _greedily(model, ids, n, positions=lambda at, seq: torch.arange(seq))
            ),
            "the positions are one too large": (
                lambda model, ids, n: _greedily(
                    model, ids, n, positions=lambda at, seq: torch.arange(at, at + seq) + (at > 0)
                )
            ),
            "the positions are one too small: each new token is written over the last one": (
                lambda model, ids, n: _greedily(
                    model, ids, n, positions=lambda at, seq: torch.arange(at, at + seq) - (at > 0)
                )
            ),
            "the new tokens are counted from 0: they go on after the prompt": (
                lambda model, ids, n: _greedily(
                    model, ids, n, positions=lambda at, seq: torch.arange(at, at + seq) - len(ids) * (at > 0)
                )
            ),
            "all tokens are drawn from the logits after the prompt: each new token must be read": (
                lambda model, ids, n: model(torch.tensor([ids]))[0, -1].topk(n).indices.tolist()
            ),
            "the last token of the prompt is read again and again; read the one that was just written": (
                lambda model, ids, n: _greedily(model, ids, n, again=ids[-1])
            ),
            "the first row of logits is taken; the next token is said by the last": (
                lambda model, ids, n: _greedily(model, ids, n, pick=lambda rows: rows[0].argmax())
            ),
            "the least probable token is taken": (
                lambda model, ids, n: _greedily(model, ids, n, pick=lambda rows: rows[-1].argmin())
            ),
            "the prompt is returned too; only the new tokens were asked": (
                lambda model, ids, n: _greedily(model, ids, n, prompt=1)
            ),
            "one token too many is returned": lambda model, ids, n: _greedily(model, ids, n + 1),
            "one token too few is returned": lambda model, ids, n: _greedily(model, ids, max(0, n - 1)),
            "the last token of the prompt is read twice": (
                lambda model, ids, n: _greedily(model, [*ids, ids[-1]], n)
            ),
            "the last token of the prompt is not read": lambda model, ids, n: _greedily(model, ids[:-1] or ids, n),
            "the same token is repeated: read the new one, not the old": (
                lambda model, ids, n: [*_greedily(model, ids, 1)] * n
            ),
        },
        kept=("ids",),
        properties=(reads_each_token_once,),
    ),
    solution("transformer", "generate"),
    (
        "`caches = model.make_caches(1, len(ids) + n)`; the prompt goes in at positions 0 to len(ids) - 1.",
        "`int(logits[0, -1].argmax())` is the next token; it is read at the position after the last.",
    ),
)

tokens_per_second = Exercise(
    Graded("transformer", "tokens_per_second", lambda: (LlamaConfig.from_preset("llama3-8b"), 2.0, 8192, 1e12)),
    solution("transformer", "tokens_per_second"),
    (
        "`config.n_params` counts all weights; which of them does one token not need?",
        "`config.kv_cache_bytes(n_tokens)` are the bytes of keys and values.",
    ),
    graded=True,
)
