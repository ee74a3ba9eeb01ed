"""Part 3 - exercises on normalisation."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch

from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.lessons.research.norm import feature as feature
from decoding_llama3.norm import RMSNorm

MEAN = "x32.square().mean(dim=-1, keepdim=True)"
ROOT = f"torch.rsqrt({MEAN} + self.eps)"


def _as_function(forward: Callable) -> Callable:
    def rms_norm(x, weight, eps):
        return forward(SimpleNamespace(weight=weight, eps=eps), x)

    return rms_norm


def norm_inputs(*shape: int, eps: float = 0.3, size: float = 1, dtype: torch.dtype = torch.float32) -> tuple:
    """Numbers that are not centred, a weight that is not 1, and an eps that counts."""
    x, weight = size * (0.5 + random(*shape)), 1 + 0.3 * random(shape[-1], seed=1)
    return x.to(dtype), weight.to(dtype), eps


def _norm_cases() -> list[Case]:
    silent = norm_inputs(1, 3, 8, eps=1e-5)
    silent[0][0, 1] = 0
    return [
        Case(norm_inputs(2, 3, 48)),
        Case(silent, "where a token's vector is zero"),
        Case(norm_inputs(5, 5, 5, eps=1e-5), "where batch, tokens and features are equally many"),
        Case(
            norm_inputs(1, 4, 48, eps=1e-5, size=300, dtype=torch.float16),
            "in float16, whose squares end at 65,504",
        ),
        Case(norm_inputs(2, 8, 64, eps=1e-5, dtype=torch.bfloat16), "in bfloat16"),
    ]


def _smallest_norm() -> Iterator[tuple]:
    for shape in ((1, 1, 2), (1, 2, 2), (2, 2, 2)):
        yield small(*shape), 1 + small(shape[-1], seed=1), 0.1
    yield small(1, 1, 2) * 300, torch.ones(2), 1e-5
    yield (small(1, 1, 2) * 600).half(), torch.ones(2).half(), 1e-5
    yield torch.zeros(1, 1, 2), torch.ones(2), 1e-5
    yield random(1, 2, 8).bfloat16(), 1 + small(8, seed=1).bfloat16(), 1e-5


rms_norm = Exercise(
    SameAs(
        RMSNorm.forward,
        _norm_cases,
        _smallest_norm,
        known={
            "the weight is not applied": ((" * self.weight", ""),),
            "the weight is added to 1 first, as in Gemma; Llama's weight is the factor itself": (
                ("* self.weight", "* (1 + self.weight)"),
            ),
            "the weight is added; it multiplies": (("* self.weight", "+ self.weight"),),
            "the weight is multiplied before the norm, which then divides by the size of the product": (
                ("x32 = x.float()", "x32 = x.float() * self.weight.float()"),
                ("normed.type_as(x) * self.weight", "normed.type_as(x)"),
            ),
            "the root mean square is returned; divide x by it": (
                (f"x32 * {ROOT}", f"({MEAN} + self.eps).sqrt()"),
                (" * self.weight", ""),
            ),
            "it divides by the weight": (("* self.weight", "/ self.weight"),),
            "eps stands outside the root; it belongs under it": ((ROOT, f"1 / ({MEAN}.sqrt() + self.eps)"),),
            "eps is not used": ((" + self.eps", ""),),
            "eps is squared": (("+ self.eps", "+ self.eps**2"),),
            "eps is added twice": (("+ self.eps", "+ 2 * self.eps"),),
            "eps is added under the root and outside": ((ROOT, f"1 / (({MEAN} + self.eps).sqrt() + self.eps)"),),
            "eps is subtracted": (("+ self.eps", "- self.eps"),),
            "eps is added to x before the squares": (
                (" + self.eps)", ")"),
                ("x32.square()", "(x32 + self.eps).square()"),
            ),
            "it divides by the mean square, not by its root": (("torch.rsqrt(", "1 / ("),),
            "it multiplies by the root mean square; it divides": (("torch.rsqrt(", "torch.sqrt("),),
            "the sum of the squares is taken, not their mean": ((".mean(", ".sum("),),
            "the sum is divided by the number of texts or tokens, not of features": (
                (MEAN, f"{MEAN.replace('mean', 'sum')} / x.shape[0]"),
            ),
            "the mean is subtracted first: that is LayerNorm": (
                ("x32 = x.float()", "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)"),
            ),
            "it divides by the standard deviation, as LayerNorm does": (
                (MEAN, "x32.var(dim=-1, correction=0, keepdim=True)"),
            ),
            "it divides by the standard deviation of a sample (n - 1); here it is the root mean square": (
                (MEAN, "x32.var(dim=-1, keepdim=True)"),
            ),
            "the mean is taken of the numbers, not of their squares": ((".square()", ""),),
            "the mean is taken of the sizes |x|, not of the squares": (
                (ROOT, f"1 / ({MEAN} + self.eps)"),
                (".square()", ".abs()"),
            ),
            "it divides by the largest number, not by the root mean square": (
                (ROOT, "1 / (x32.abs().amax(dim=-1, keepdim=True) + self.eps)"),
            ),
            "the mean runs over the tokens (axis -2); it belongs over the features of one token": (
                ("dim=-1", "dim=-2"),
            ),
            "the mean runs over the first axis; it belongs over the features, the last axis": (
                ("dim=-1", "dim=0"),
            ),
            "one mean is taken for all tokens; each token has its own": (("dim=-1, keepdim=True", ""),),
            "the mean has lost its axis: keepdim=True lets it divide each token's features": (
                (", keepdim=True", ""),
            ),
            "the squares are taken in the dtype of x: beyond |x| = 255 they overflow in float16; use float32": (
                ("x.float()", "x"),
            ),
            "the result has another dtype than x: cast back with type_as(x)": (("normed.type_as(x)", "normed"),),
        },
        adapt=_as_function,
        kept=("x", "weight"),
    ),
    solution("norm", "rms_norm"),
    (
        "Four steps: square, mean over the last axis (keep it), add eps and take the root, divide.",
        "`x.float()` before the squares, `.type_as(x)` after the division, and the weight last.",
    ),
)

fold = Exercise(
    Graded("norm", "fold", lambda: (random(6, 6), random(6, seed=1))),
    solution("norm", "fold"),
    (
        "Write out one number of the result: row i of the matrix times (x * weight). Which factors can be joined?",
        "Column j of the matrix only ever meets feature j of x.",
    ),
    graded=True,
)

rms_by_depth = Exercise(
    Graded("norm", "rms_by_depth", lambda: (random(5, 4), [random(5, 4, seed=1), random(5, 4, seed=2)])),
    solution("norm", "rms_by_depth"),
    (
        "The stream after a part is the stream before it, plus what the part writes.",
        "A list that starts with the embedding and grows by one stream per part; `torch.stack` joins it.",
    ),
    graded=True,
)

norm_of_slices = Exercise(
    Graded("norm", "norm_of_slices", lambda: ([random(3, 4), random(3, 2, seed=1)], 1e-5)),
    solution("norm", "norm_of_slices"),
    (
        "Which one number per token must all cards agree on? What must each card tell the others for it?",
        "Sums of squares can be added, means cannot where the slices differ in size.",
    ),
    graded=True,
)
