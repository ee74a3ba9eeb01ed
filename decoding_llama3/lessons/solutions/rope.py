"""Part 4 - solutions of the exercises on rotary embeddings, and the checks of the graded ones."""

import math

import torch

from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_apply_rope(x, rotation):
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    cos, sin = rotation[..., 0], rotation[..., 1]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x)


def my_rope_frequencies(head_dim, theta):
    return 1 / theta ** (torch.arange(0, head_dim, 2) / head_dim)


def my_scale_frequencies(freqs, scaling):
    turns = scaling.original_context * freqs / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return share * freqs + (1 - share) * freqs / scaling.factor


def my_to_half_split(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    return torch.cat((heads[:, 0::2], heads[:, 1::2]), dim=1).flatten(0, 1)


HEADS = "weight.unflatten(0, (n_heads, -1))"
SORTED = "torch.cat((heads[:, 0::2], heads[:, 1::2]), dim=1).flatten(0, 1)"
TO_HALF_SPLIT = SameAs(
    my_to_half_split,
    cases=lambda: [
        Case((random(3 * 8, 5), 3), tolerance=0),
        Case((random(8, 8), 1), "with a single head", tolerance=0),
        Case((random(4 * 4, 16), 4), "where heads and rows per head are equally many", tolerance=0),
        Case((random(2 * 8, 4).bfloat16(), 2), "in bfloat16", tolerance=0),
    ],
    smallest=lambda: [(small(4, 1), 1), (small(8, 1), 1), (small(8, 1), 2), (small(4, 4), 1)],
    known={
        "the rows are where they were": ((SORTED, "weight.clone()"),),
        "the rows are sorted across all heads; each head is sorted for itself": (
            (SORTED, "torch.cat((weight[0::2], weight[1::2]))"),
        ),
        "that is the way back, from halves to neighbours": (
            (SORTED, "torch.stack(heads.chunk(2, dim=1), dim=2).flatten(0, 2)"),
        ),
        "the halves are exchanged: even rows come first": (
            ("(heads[:, 0::2], heads[:, 1::2])", "(heads[:, 1::2], heads[:, 0::2])"),
        ),
        "the columns are moved; the rows are the features of q": (
            (SORTED, "torch.cat((weight[:, 0::2], weight[:, 1::2]), dim=1)"),
        ),
        "n_heads is taken for the rows of a head": ((HEADS, "weight.unflatten(0, (-1, n_heads))"),),
        "the heads are put in another order; they keep theirs": (
            (SORTED, f"{SORTED}.unflatten(0, (n_heads, -1)).flip(0).flatten(0, 1)"),
        ),
        "the heads are mixed: their axis changes its place": (
            (SORTED, "weight.unflatten(0, (n_heads, -1, 2)).transpose(0, 1).reshape(weight.shape)"),
        ),
        "the second half has another sign; rows are moved, not changed": (
            ("heads[:, 1::2])", "-heads[:, 1::2])"),
        ),
        "only the first head is sorted": (
            (SORTED, "torch.cat((heads[0, 0::2], heads[0, 1::2], heads[1:].flatten(0, 1)))"),
        ),
        "the order of the rows is returned; the sorted weight was asked": (
            (
                SORTED,
                "torch.cat((torch.arange(0, heads.shape[1], 2), torch.arange(1, heads.shape[1], 2)))",
            ),
        ),
        "the two halves of each head are exchanged": (
            (SORTED, "torch.cat(heads.chunk(2, dim=1)[::-1], dim=1).flatten(0, 1)"),
        ),
        "heads keep an axis of their own; rows were asked": ((".flatten(0, 1)", ""),),
        "the matrix comes out transposed": ((SORTED, f"{SORTED}.T"),),
        "the rows of each head are reversed": ((SORTED, "heads.flip(1).flatten(0, 1)"),),
    },
    kept=("weight",),
)

CHECKS = {"to_half_split": TO_HALF_SPLIT}
