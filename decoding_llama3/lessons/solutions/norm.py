"""Part 3 - solutions of the exercises on normalisation, and the checks of the graded ones."""

import torch

from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_rms_norm(x, weight, eps):
    x32 = x.float()
    mean_square = x32.square().mean(dim=-1, keepdim=True)
    return (x32 / (mean_square + eps).sqrt()).type_as(x) * weight


def my_fold(matrix, weight):
    return matrix * weight


def my_rms_by_depth(embedding, writes):
    streams = [embedding]
    for write in writes:
        streams.append(streams[-1] + write)
    return torch.stack(streams).square().mean(dim=-1).sqrt()


def my_norm_of_slices(slices, eps):
    total = sum(part.float().square().sum(dim=-1, keepdim=True) for part in slices)
    n = sum(part.shape[-1] for part in slices)
    scale = torch.rsqrt(total / n + eps)
    return [(part.float() * scale).type_as(part) for part in slices]


FOLD = SameAs(
    my_fold,
    # A square one first, so that the wrong axis gives numbers and no error.
    cases=lambda: [
        Case((random(6, 6), 1 + 0.3 * random(6, seed=1))),
        Case((random(4, 6), 1 + 0.3 * random(6, seed=1)), "where the matrix has fewer rows than columns"),
        Case((random(4, 6).bfloat16(), 1 + small(6, seed=1).bfloat16()), "in bfloat16"),
    ],
    smallest=lambda: [(small(2, 2), 1 + small(2, seed=1)), (small(1, 2), 1 + small(2, seed=1))],
    known={
        "nothing is folded in": (("matrix * weight", "matrix"),),
        "it divides by the weight": (("*", "/"),),
        "the weight is added": (("*", "+"),),
        "the weight is added to 1 first; it is the factor itself": (("* weight", "* (1 + weight)"),),
        "the rows are scaled; the weight belongs to the columns, which meet the features of x": (
            ("* weight", "* weight[:, None]"),
        ),
        "the matrix comes out transposed": (("matrix * weight", "(matrix * weight).T"),),
        "the rows are scaled, and the matrix comes out transposed": (("matrix * weight", "matrix.T * weight"),),
        "the matrix is multiplied with the weight as a vector; it must stay a matrix": (
            ("matrix * weight", "matrix @ weight"),
        ),
        "only the diagonal is scaled": (
            ("matrix * weight", "matrix * (1 + (weight - 1) * torch.eye(*matrix.shape))"),
        ),
        "the mean of the weight is folded in; each feature has its own": (("* weight", "* weight.mean()"),),
        "only the diagonal of the matrix is kept": (
            ("matrix * weight", "matrix * torch.eye(*matrix.shape) * weight"),
        ),
        "the weight is stacked below the matrix; it is multiplied in": (
            ("matrix * weight", "torch.cat((matrix, weight[None]))"),
        ),
        "the columns lose their mean: that would be LayerNorm's": (
            ("matrix * weight", "(matrix - matrix.mean(dim=-1, keepdim=True)) * weight"),
        ),
        "the weight is normalised first": (("* weight", "* weight / weight.norm()"),),
        "the weight is folded in twice": (("* weight", "* weight * weight"),),
        "the root of the weight is folded in": (("* weight", "* weight.abs().sqrt()"),),
    },
    kept=("matrix", "weight"),
)


def _depth(seq: int, dim: int, n_parts: int, numbers=random) -> tuple:
    return numbers(seq, dim), [numbers(seq, dim, seed=seed) for seed in range(1, n_parts + 1)]


STREAMS = "streams[-1] + write"
RMS = "torch.stack(streams).square().mean(dim=-1).sqrt()"
RMS_BY_DEPTH = SameAs(
    my_rms_by_depth,
    cases=lambda: [
        Case(_depth(5, 8, 4)),
        Case(_depth(4, 4, 4), "where tokens, features and parts are equally many"),
        Case(_depth(3, 8, 1), "with a single part"),
        Case(_depth(3, 8, 0), "with no part at all"),
    ],
    smallest=lambda: [_depth(1, 2, 1, small), _depth(2, 2, 1, small), _depth(2, 2, 2, small)],
    known={
        "it shows what each part writes; the stream is the sum of all that was written so far": (
            (STREAMS, "write"),
        ),
        "each write is added to the embedding alone; the stream keeps all that came before": (
            (STREAMS, "embedding + write"),
        ),
        "the start is missing: the first row is the embedding's": (
            (RMS, RMS.replace("streams)", "streams[1:])")),
        ),
        "the end is missing: the last row is that after the last part": (
            (RMS, RMS.replace("streams)", "streams[:-1])")),
        ),
        "it is the length of the vector; the root mean square divides by the number of features first": (
            (".mean(dim=-1)", ".sum(dim=-1)"),
        ),
        "it is the mean square: the root is missing": ((".sqrt()", ""),),
        "the mean is taken over the tokens; each token has its own": ((".mean(dim=-1)", ".mean(dim=-2)"),),
        "one mean is taken for all tokens": ((".mean(dim=-1)", ".mean(dim=(-1, -2))"),),
        "it is the standard deviation, which leaves out the mean of the features": (
            (".square().mean(dim=-1).sqrt()", ".std(dim=-1, correction=0)"),
        ),
        "the root mean squares are added up; the vectors are, and then the size is taken": (
            (RMS, "torch.stack([w.square().mean(dim=-1).sqrt() for w in [embedding, *writes]]).cumsum(dim=0)"),
        ),
        "the squares are added up, as if all writes stood at right angles; add the vectors": (
            (RMS, "torch.stack([w.square().mean(dim=-1) for w in [embedding, *writes]]).cumsum(dim=0).sqrt()"),
        ),
        "one tensor is changed in place, so all rows show the end; a list must hold copies": (
            (RMS, "streams[-1].square().mean(dim=-1).sqrt().expand(len(streams), -1).clone()"),
        ),
        "each row is divided by the first: the sizes themselves were asked": ((RMS, f"{RMS} / {RMS}[:1]"),),
        "the last axis is kept; (1 + parts, seq) was asked": ((".mean(dim=-1)", ".mean(dim=-1, keepdim=True)"),),
        "all rows are joined into one; stack them": ((RMS, f"{RMS}.flatten()"),),
        "it is the standard deviation of a sample (n - 1)": ((".square().mean(dim=-1).sqrt()", ".std(dim=-1)"),),
        "it is the mean size |x|; the root mean square takes squares": (
            (".square().mean(dim=-1).sqrt()", ".abs().mean(dim=-1)"),
        ),
        "depth and tokens are exchanged: (1 + parts, seq) was asked": ((RMS, f"{RMS}.T"),),
        "a list is returned; one tensor was asked: torch.stack": ((RMS, f"list({RMS})"),),
        "the stream is averaged, not added up": ((STREAMS, f"({STREAMS}) / 2"),),
    },
    kept=("embedding", "writes"),
)


def _slices(seq: int, *sizes: int, numbers=random, eps=0.1, dtype=torch.float32) -> tuple:
    return [(0.5 + numbers(seq, n, seed=n)).to(dtype) for n in sizes], eps


NORM_OF_SLICES = SameAs(
    my_norm_of_slices,
    cases=lambda: [
        Case(_slices(3, 4, 2)),
        Case(_slices(2, 5, 3, 8), "with three cards"),
        Case(_slices(2, 6), "with a single card"),
    ],
    smallest=lambda: [
        _slices(1, 1, 1, numbers=small),
        _slices(1, 1, 2, numbers=small),
        _slices(2, 1, 2, numbers=small),
    ],
    known={
        "each slice is normalised by itself; one statistic holds for the whole vector": (
            (
                "(part.float() * scale)",
                "(part.float() * torch.rsqrt(part.float().square().mean(-1, keepdim=True) + eps))",
            ),
        ),
        "the means of the slices are averaged, but the slices differ in size: add up sums": (
            (".sum(dim=-1, keepdim=True)", ".mean(dim=-1, keepdim=True)"),
            ("sum(part.shape[-1] for part in slices)", "len(slices)"),
        ),
        "the means of the slices are added up": (
            (".sum(dim=-1, keepdim=True)", ".mean(dim=-1, keepdim=True)"),
            ("sum(part.shape[-1] for part in slices)", "1"),
        ),
        "the sum of the squares is not divided by the number of features": (("total / n", "total"),),
        "the sum is divided by the number of cards, not of features": (
            ("sum(part.shape[-1] for part in slices)", "len(slices)"),
        ),
        "the sum is divided by the features of the first card alone": (
            ("sum(part.shape[-1] for part in slices)", "slices[0].shape[-1]"),
        ),
        "eps is not used": ((" + eps", ""),),
        "eps is added once per card": (("+ eps", "+ eps * len(slices)"),),
        "eps stands outside the root": (("torch.rsqrt(total / n + eps)", "1 / ((total / n).sqrt() + eps)"),),
        "it divides by the mean square, not by its root": (("torch.rsqrt(", "1 / ("),),
        "it multiplies by the root mean square": (("torch.rsqrt(", "torch.sqrt("),),
        "the whole vector is returned; each card keeps its own slice": (
            (
                "[(part.float() * scale).type_as(part) for part in slices]",
                "torch.cat([(part.float() * scale).type_as(part) for part in slices], dim=-1)",
            ),
        ),
        "one statistic is taken for all tokens; each token has its own": (
            (".sum(dim=-1, keepdim=True)", ".sum()"),
        ),
        "the mean is subtracted first: that is LayerNorm": (
            ("part.float().square()", "(part.float() - part.float().mean(dim=-1, keepdim=True)).square()"),
        ),
        "each slice is divided by its own size": (
            ("total / n + eps)", "total / n + eps) * 1"),
            ("(part.float() * scale)", "(part.float() * torch.rsqrt(total / part.shape[-1] + eps))"),
        ),
        "the slices are taken for equally large": (
            ("sum(part.shape[-1] for part in slices)", "slices[0].shape[-1] * len(slices)"),
        ),
        "the statistic runs over the tokens; it belongs over the features of one token": (
            (".sum(dim=-1, keepdim=True)", ".mean(dim=-1, keepdim=True).mean(dim=0, keepdim=True)"),
            ("total / n", "total / len(slices)"),
        ),
    },
    kept=("slices",),
)

CHECKS = {"fold": FOLD, "rms_by_depth": RMS_BY_DEPTH, "norm_of_slices": NORM_OF_SLICES}
