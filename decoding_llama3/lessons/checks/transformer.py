"""Part 7 - exercises on the block and on sampling."""

import torch

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, random


def _solve_block(x, attention, feed_forward, attention_norm, ffn_norm):
    h = x + attention(attention_norm(x))
    return h + feed_forward(ffn_norm(h))


def _check_block(answer):
    a, f, n, m = (random(8, 8, seed=seed) / 3 for seed in range(4))

    def attention(x):
        return torch.tanh(x @ a).cumsum(dim=1)

    def feed_forward(x):
        return torch.tanh(x @ f)

    def attention_norm(x):
        return x @ n / x.norm(dim=-1, keepdim=True)

    def ffn_norm(x):
        return x @ m / x.norm(dim=-1, keepdim=True)

    x = random(2, 5, 8, seed=9)
    h = x + attention(attention_norm(x))
    after = attention_norm(x + attention(x))
    other = x + feed_forward(ffn_norm(x))
    known = {
        "the second sum starts from x; it starts from the first sum": x + feed_forward(ffn_norm(h)),
        "both parts read x: the feed-forward reads what attention has written": h + feed_forward(ffn_norm(x)),
        "the norms stand after the sums: that is post-norm": ffn_norm(after + feed_forward(after)),
        "the feed-forward reads without a norm": h + feed_forward(h),
        "one norm serves both parts; each has its own": h + feed_forward(attention_norm(h)),
        "the norms are exchanged": _solve_block(x, attention, feed_forward, ffn_norm, attention_norm),
        "the feed-forward comes first": other + attention(attention_norm(other)),
        "the stream is replaced; each part adds to it": feed_forward(ffn_norm(attention(attention_norm(x)))),
        "the last sum is missing": feed_forward(ffn_norm(h)),
    }
    before = x.clone()
    found = answer(x, attention, feed_forward, attention_norm, ffn_norm)
    expect_close(found, h + feed_forward(ffn_norm(h)), known)
    if not torch.equal(x, before):
        raise Mistake("it changed x itself (+= does): others still need it")


block = Exercise(
    _check_block,
    _solve_block,
    (
        "Twice the same pattern: what was, plus a part that reads a normalised copy of it.",
        "The second line does not mention x.",
    ),
)


def _solve_top_p(probabilities, p):
    falling, order = probabilities.sort(descending=True)
    stays = falling.cumsum(dim=-1) - falling <= p
    return torch.zeros_like(stays).scatter(0, order, stays)


def _check_top_p(answer):
    probabilities = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625])  # exact in binary
    cases = {0.1: [1], 0.6: [1, 3], 0.5: [1, 3], 0.8: [0, 1, 3], 1.0: [0, 1, 2, 3, 4]}
    for p, kept in cases.items():
        found = answer(probabilities.clone(), p)
        right = torch.zeros(5, dtype=torch.bool)
        right[kept] = True
        if isinstance(found, torch.Tensor) and found.dtype != torch.bool and found.shape == right.shape:
            raise Mistake(f"it returns {found.dtype} numbers, where True (stays) or False was expected")
        falling = probabilities.sort(descending=True).values
        known = {
            f"at p {p}, nothing is left to draw from: the first token always stays": torch.zeros_like(right),
            "the answer is in falling order; it belongs in the order of the tokens": falling.cumsum(0) - falling
            <= p,
            f"at p {p}, the token with which the sum passes p is missing": probabilities.sort(descending=True)
            .values.cumsum(0)
            .le(p)[probabilities.sort(descending=True).indices.argsort()],
            "each probability was compared with p; their running sum is": probabilities >= p,
        }
        expect_close(found, right, {k: v for k, v in known.items() if not torch.equal(v, right)})


top_p = Exercise(
    _check_top_p,
    _solve_top_p,
    (
        "Sort falling. Before each token, how much have those ahead of it together? `cumsum`, minus its own.",
        "`order` from the sort says where each token came from: `scatter` puts the answer back there.",
    ),
)
