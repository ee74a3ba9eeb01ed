"""Part 3 - exercises on normalisation."""

import torch
import torch.nn.functional as F

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, expect_like, random


def _solve_rms_norm(x, weight, eps):
    x32 = x.float()
    normed = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps)
    return normed.type_as(x) * weight


def _check_rms_norm(answer):
    x, weight, eps = 1 + random(2, 3, 48), 1 + 0.3 * random(48, seed=1), 0.3
    square = x.square().mean(dim=-1, keepdim=True)
    normed = x / (square + eps).sqrt()
    known = {
        "the weight is not applied": normed,
        "eps stands outside the root; it belongs under it": x / (square.sqrt() + eps) * weight,
        "eps is not used": x / square.sqrt() * weight,
        "it divides by the mean square, not by its root": x / (square + eps) * weight,
        "the sum of the squares was taken, not their mean": x / (48 * square + eps).sqrt() * weight,
        "the mean was subtracted first: that is LayerNorm": F.layer_norm(x, (48,), weight, eps=eps),
        "it divides by the standard deviation, as LayerNorm does": x
        / (x.var(dim=-1, correction=0, keepdim=True) + eps).sqrt()
        * weight,
        "the mean runs over the tokens; it belongs over the features of one token": x
        / (x.square().mean(dim=1, keepdim=True) + eps).sqrt()
        * weight,
        "one mean was taken for all tokens; each token has its own": x / (x.square().mean() + eps).sqrt() * weight,
    }
    expect_close(answer(x, weight, eps), F.rms_norm(x, (48,), weight, eps), known)
    big = (300 * random(1, 4, 48)).half()
    found = answer(big, torch.ones(48, dtype=torch.float16), 1e-5)
    expect_like(found, big)
    if not torch.isfinite(found).all() or found.abs().max() < 0.1:
        raise Mistake("numbers around 300 in float16 come out as 0 or nan: square them in float32")


rms_norm = Exercise(
    _check_rms_norm,
    _solve_rms_norm,
    (
        "Four steps: square, mean over the last axis (keep it), add eps and take the root, divide.",
        "`x.float()` before the squares, `.type_as(x)` after the division, and the weight last.",
    ),
)


def _solve_fold_weight(matrix, weight):
    return matrix * weight


def _check_fold_weight(answer):
    for rows in (6, 4):  # square first, so that the wrong axis gives numbers and no error
        matrix, weight, x = random(rows, 6), 1 + 0.3 * random(6, seed=1), random(5, 6, seed=2)
        before = matrix.clone()
        known = {"it divides by the weight": before / weight, "nothing was folded in": before}
        if rows == 6:
            known["the rows were scaled; the weight belongs to the columns, which meet the features of x"] = (
                before * weight[:, None]
            )
        found = answer(matrix, weight)
        expect_close(found, before * weight, known)
        if not torch.equal(matrix, before):
            raise Mistake("it changed the matrix it was given: make a new one")
        if not torch.allclose(x @ found.T, (x * weight) @ before.T, rtol=1e-4, atol=1e-5):
            raise Mistake("x through the new matrix is not x times weight through the old one")


fold_weight = Exercise(
    _check_fold_weight,
    _solve_fold_weight,
    (
        "Write out one number of the result: row i of the matrix times (x * weight). Which factors can be joined?",
        "Column j of the matrix only ever meets feature j of x.",
    ),
)
