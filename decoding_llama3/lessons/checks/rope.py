"""Part 4 - exercises on rotary embeddings."""

from collections.abc import Callable

import torch
from torch import Tensor

from decoding_llama3.lessons.checks.rope_scaling import scale_frequencies as scale_frequencies
from decoding_llama3.lessons.checks.rope_scaling import tokens_per_radian
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.lessons.research.rope import pair as pair
from decoding_llama3.rope import apply_rope as rotated
from decoding_llama3.rope import rope_frequencies as frequencies
from decoding_llama3.rope import rope_rotation

TURNED = "torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)"


def rope_inputs(
    *shape: int, start: int = 0, numbers: Callable = random, dtype: torch.dtype = torch.float32
) -> tuple:
    """Queries of (batch, heads, seq, head_dim), and the rotation at positions from `start` on."""
    rotation = rope_rotation(frequencies(shape[-1], 10_000.0), torch.arange(start, start + shape[-2]))
    return numbers(*shape).to(dtype), rotation


def _halves_turned(x: Tensor, rotation: Tensor) -> Tensor:
    cos, sin = rotation.unbind(-1)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).type_as(x)


def _overwritten(x: Tensor, rotation: Tensor) -> Tensor:
    cos, sin = rotation.unbind(-1)
    new = x.float().clone()
    new[..., 0::2] = new[..., 0::2] * cos - new[..., 1::2] * sin
    new[..., 1::2] = new[..., 0::2] * sin + new[..., 1::2] * cos
    return new.type_as(x)


def _tiled_cosines(x: Tensor, rotation: Tensor) -> Tensor:
    cos, sin = rotation.repeat(1, 2, 1).unbind(-1)
    crossed = torch.stack((-x.float()[..., 1::2], x.float()[..., 0::2]), dim=-1).flatten(-2)
    return (x.float() * cos + crossed * sin).type_as(x)


def _along_heads(x: Tensor, rotation: Tensor) -> Tensor:
    return rotated(x.transpose(1, 2), rotation).transpose(1, 2)


apply_rope = Exercise(
    SameAs(
        rotated,
        cases=lambda: [
            Case(rope_inputs(2, 5, 5, 8)),
            Case(rope_inputs(1, 3, 4, 16, start=9), "at positions that do not start at 0"),
            Case(rope_inputs(1, 2, 3, 16, start=8000), "at positions beyond 8,000"),
            Case(rope_inputs(1, 2, 1, 8, start=7), "for a single token, as when one is decoded"),
            Case(
                rope_inputs(2, 2, 6, 16, start=8000, dtype=torch.bfloat16),
                "in bfloat16 to the last bit",
                equal=0.9,
            ),
        ],
        smallest=lambda: [
            rope_inputs(1, 1, 1, 2, start=1, numbers=small),
            rope_inputs(1, 1, 1, 4, start=1, numbers=small),
            rope_inputs(1, 2, 2, 4, start=1, numbers=small),
            rope_inputs(1, 1, 2, 8, start=8000, dtype=torch.bfloat16),
        ],
        known={
            "feature i is paired with i + head_dim / 2, as Hugging Face lays it out; here with its neighbour": (
                _halves_turned
            ),
            "the pairs are right, but they are put back as two halves: `cat` where `stack` belongs": (
                ("torch.stack(", "torch.cat("),
                ("rotated.flatten(-2)", "rotated"),
            ),
            "the pairs are joined by `cat` and then flattened, so the heads or tokens run together": (
                ("torch.stack(", "torch.cat("),
            ),
            "the new even feature is used for the odd one: keep the old until both are computed": _overwritten,
            "it turns the other way round: exchange the signs of the sines": (
                (
                    "even * cos - odd * sin, even * sin + odd * cos",
                    "even * cos + odd * sin, odd * cos - even * sin",
                ),
            ),
            "both sines have a minus sign; the second sum is even * sin + odd * cos": (
                ("even * sin + odd * cos", "odd * cos - even * sin"),
            ),
            "no sine has a minus sign; the first is even * cos - odd * sin": (
                ("even * cos - odd", "even * cos + odd"),
            ),
            "cosine and sine are exchanged": (("cos, sin = rotation", "sin, cos = rotation"),),
            "only the cosines are used": ((TURNED, "torch.stack((even * cos, odd * cos), dim=-1)"),),
            "only even features are turned": ((TURNED, "torch.stack((even * cos - odd * sin, odd), dim=-1)"),),
            "even and odd features are exchanged": (("even, odd =", "odd, even ="),),
            "even and odd features come back exchanged": (
                (TURNED, "torch.stack((even * sin + odd * cos, even * cos - odd * sin), dim=-1)"),
            ),
            "the rotation is taken for angles; it holds their cosines and sines already": (
                ("rotation.unbind(-1)  # (seq, pairs)", "rotation[..., 0].cos(), rotation[..., 1].sin()"),
            ),
            "the cosines are laid out for half-split pairs, 0 1 2 0 1 2; for neighbours it is 0 0 1 1 2 2": (
                _tiled_cosines
            ),
            "both features are multiplied, cos x and sin x; a turned feature takes from its neighbour": (
                (TURNED, "torch.stack((even * cos, odd * sin), dim=-1)"),
            ),
            "nothing is turned": (("return rotated.flatten(-2).type_as(x)", "return x"),),
            "the positions run along the heads: axis 1 is heads, axis 2 is tokens": _along_heads,
            "every token gets the first token's angle": (
                ("cos, sin = rotation.unbind(-1)", "cos, sin = rotation[:1].unbind(-1)"),
            ),
            "the pairs are left as an axis of their own: flatten the last two": ((".flatten(-2)", ""),),
            "the result has another dtype than x: cast back with type_as(x)": ((".type_as(x)", ""),),
            "cosine and sine are rounded to the dtype of x; turn in float32, then cast": (
                ("x.float().unflatten", "x.unflatten"),
                ("rotation.unbind(-1)", "rotation.type_as(x).unbind(-1)"),
            ),
        },
        kept=("x",),
    ),
    solution("rope", "apply_rope"),
    (
        "`x[..., 0::2]` and `x[..., 1::2]` are the two numbers of every pair, `rotation[..., 0]` the cosines.",
        "A point (a, b) turned by an angle: a cos - b sin, and a sin + b cos. Both use the old a and b.",
        "`torch.stack((a, b), dim=-1).flatten(-2)` puts the pairs back in their places.",
    ),
)


EXPONENTS = "torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim"
rope_frequencies = Exercise(
    SameAs(
        frequencies,
        cases=lambda: [
            Case((128, 500_000.0)),
            Case((8, 10_000.0), "for another head_dim and theta"),
            Case((2, 10_000.0), "for a single pair"),
        ],
        smallest=lambda: [(2, 100.0), (4, 100.0), (6, 100.0)],
        known={
            "they grow: pair i turns by one over theta^(2i/head_dim)": (
                ("1.0 / theta**exponents", "theta**exponents"),
            ),
            "they fall too slowly: the exponent is 2i/head_dim, not i/head_dim": (
                (EXPONENTS, "torch.arange(0, head_dim // 2).float() / head_dim"),
            ),
            "there is one per feature; there is one per pair": (
                (EXPONENTS, "torch.arange(head_dim).float() / head_dim"),
            ),
            "each is there twice, as for half-split pairs; one per pair was asked": (
                ("return 1.0 / theta**exponents", "return torch.cat((theta**-exponents, theta**-exponents))"),
            ),
            "the slowest is exactly 1 / theta; the last exponent is (head_dim - 2) / head_dim, not 1": (
                (EXPONENTS, "torch.linspace(0, 1, head_dim // 2)"),
            ),
            "they count from i = 1; the first pair turns by one radian per token": (
                (EXPONENTS, "torch.arange(2, head_dim + 2, 2).float() / head_dim"),
            ),
            "the order is reversed: the first pair is the fastest": (
                ("return 1.0 / theta**exponents", "return (1.0 / theta**exponents).flip(0)"),
            ),
            "they are turns per token; asked are radians, without 2 pi": (
                ("1.0 / theta**exponents", "1.0 / theta**exponents / (2 * math.pi)"),
            ),
            "they are multiplied by 2 pi; radians per token were asked": (
                ("1.0 / theta**exponents", "2 * math.pi / theta**exponents"),
            ),
            "the logarithm has base 10, so theta is too small": (
                ("1.0 / theta**exponents", "torch.exp(-exponents * math.log10(theta))"),
            ),
            "a minus sign stands before the power, not in the exponent": (
                ("1.0 / theta**exponents", "-(theta**exponents)"),
            ),
            "the last pair is missing: there are head_dim / 2": (
                (EXPONENTS, "torch.arange(0, head_dim - 2, 2).float() / head_dim"),
            ),
            "they are rounded to bfloat16 on the way": (
                ("1.0 / theta**exponents", "(1.0 / theta**exponents).bfloat16().float()"),
            ),
            "they stand in a column; one axis of pairs was asked": (
                ("1.0 / theta**exponents", "(1.0 / theta**exponents)[:, None]"),
            ),
            "they fall by equal steps; they fall by equal factors": (
                ("1.0 / theta**exponents", "1 - exponents * (1 - 1 / theta)"),
            ),
            "theta is not used": (("theta**exponents", "10_000.0**exponents"),),
            "the exponent is not divided by head_dim": ((" / head_dim", ""),),
            "the exponent is divided by the number of pairs, so that it reaches 2": (
                (" / head_dim", " / (head_dim // 2)"),
            ),
            "the wavelengths are returned, tokens per turn": (
                ("1.0 / theta**exponents", "2 * math.pi * theta**exponents"),
            ),
            "the result is float64; float32 was asked": (("dtype=torch.float32", "dtype=torch.float64"),),
        },
        adapt=lambda function: lambda head_dim, theta: function(head_dim, theta),
        observe=tokens_per_radian,
    ),
    solution("rope", "rope_frequencies"),
    (
        "How many pairs are there, and what is the exponent of the first and of the second?",
        "`torch.arange(0, head_dim, 2) / head_dim` are the exponents.",
    ),
)


to_half_split = Exercise(
    Graded("rope", "to_half_split", lambda: (random(3 * 8, 5), 3)),
    solution("rope", "to_half_split"),
    (
        "The rows of `wq` are the features of q: head 0 first, then head 1. Give the heads an axis of their own.",
        "Within a head: where must row 1 go, where row 2?",
    ),
    graded=True,
)
