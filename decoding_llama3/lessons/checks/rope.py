"""Part 4 - exercises on rotary embeddings."""

import torch

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, random
from decoding_llama3.rope import apply_rope as _apply_rope
from decoding_llama3.rope import rope_frequencies, rope_rotation


def _solve_rotate(x, positions, theta):
    pairs = torch.arange(0, x.shape[-1], 2) / x.shape[-1]
    angles = positions[:, None].float() / theta**pairs
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(turned, dim=-1).flatten(-2)


def _check_rotate(answer):
    x, positions, theta = random(2, 3, 5, 8), torch.tensor([0, 1, 4, 9, 100]), 10_000.0
    frequencies = rope_frequencies(8, theta)

    def turned(frequencies=frequencies, positions=positions, x=x):
        return _apply_rope(x, rope_rotation(frequencies, positions))

    halves = torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)  # pair i is (i, i + 4)
    by_halves = torch.cat(turned(x=halves).unflatten(-1, (-1, 2)).unbind(-1), dim=-1)
    known = {
        "feature i was paired with i + head_dim / 2, as Hugging Face lays it out; here with i + 1": by_halves,
        "it turns the other way round: exchange the signs of the sines": turned(-frequencies),
        "the positions it was given are not used; it counts from 0": turned(positions=torch.arange(5)),
        "the frequencies fall too slowly: pair i has 1 / theta^(2i / head_dim)": turned(frequencies.sqrt()),
        "all pairs turn at one frequency": turned(torch.ones_like(frequencies)),
        "nothing is turned": x,
    }
    expect_close(answer(x, positions, theta), turned(), known)
    q, k = random(1, 1, 1, 8, seed=1).double(), random(1, 1, 1, 8, seed=2).double()

    def score(m, n):
        return (answer(q, torch.tensor([m]), theta) * answer(k, torch.tensor([n]), theta)).sum()

    if (score(7, 2) - score(907, 902)).abs() > 1e-3:
        raise Mistake("a score changes when query and key move together: it must depend on their distance alone")
    other = answer(x, positions, 100.0)
    expect_close(other, turned(rope_frequencies(8, 100.0)), {"theta is not used": turned()})


rotate = Exercise(
    _check_rotate,
    _solve_rotate,
    (
        "Frequency of pair i: `1 / theta ** (2 * i / head_dim)`. Angles: position times frequency, (seq, pairs).",
        "`x[..., 0::2]` and `x[..., 1::2]` are the two numbers of every pair; turn them by cos and sin.",
        "`torch.stack((a, b), dim=-1).flatten(-2)` puts the pairs back in their places.",
    ),
)


def _solve_to_half_split(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    return torch.cat((heads[:, 0::2], heads[:, 1::2]), dim=1).flatten(0, 1)


def _check_to_half_split(answer):
    weight, n_heads, head_dim = random(3 * 8, 5), 3, 8
    order = torch.cat((torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)))
    right = weight.view(n_heads, head_dim, 5)[:, order].reshape(24, 5)
    known = {
        "the rows were sorted across all heads; each head is sorted for itself": torch.cat(
            (weight[0::2], weight[1::2])
        ),
        "that is the way back, from halves to neighbours": weight.view(n_heads, head_dim, 5)[
            :, order.argsort()
        ].reshape(24, 5),
        "the rows are where they were": weight,
        "the halves are exchanged: even rows come first": weight.view(n_heads, head_dim, 5)[
            :, order.roll(4)
        ].reshape(24, 5),
    }
    expect_close(answer(weight.clone(), n_heads), right, known, tolerance=0)
    one = random(8, 8)
    expect_close(answer(one.clone(), 1), one[order], {"the columns were moved; rows belong to q": one[:, order]})


to_half_split = Exercise(
    _check_to_half_split,
    _solve_to_half_split,
    (
        "The rows of `wq` are the features of q: head 0 first, then head 1. Give the heads an axis of their own.",
        "Within a head: all even rows, then all odd rows.",
    ),
)
