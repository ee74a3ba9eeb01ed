"""Part 5 - exercises on attention."""

import torch
import torch.nn.functional as F

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, random


def _solve_attend(q, k, v, mask):
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v


def _reference(q, k, v, mask):
    share = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(share, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _check_attend(answer):
    q, k, v = 2 * random(2, 6, 4, 16), random(2, 3, 7, 16, seed=1), random(2, 3, 7, 16, seed=2)
    mask = torch.arange(7) <= torch.arange(3, 7)[:, None]  # four queries after three cached tokens
    everywhere, root = torch.ones_like(mask), 16**0.5
    tiled = F.scaled_dot_product_attention(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), attn_mask=mask)
    late = _reference(q, k, v, everywhere)  # its softmax has seen the future
    scores = q @ k.repeat_interleave(2, dim=1).transpose(-2, -1) / root
    cut_late = scores.softmax(-1).masked_fill(~mask, 0) @ v.repeat_interleave(2, dim=1)
    known = {
        "the mask is not used: it looks into the future": late,
        "the mask came after the softmax: weights no longer add up to 1": cut_late,
        "keys and values are tiled (0 1 2 0 1 2); queries 0 and 1 share head 0: repeat_interleave": tiled,
        "the scores are not scaled": _reference(q * root, k, v, mask),
        "the scores were divided by head_dim, not by its root": _reference(q / root, k, v, mask),
        "the scores were divided by the root of dim, all heads together, not of head_dim": _reference(
            q / 6**0.5, k, v, mask
        ),
    }
    expect_close(answer(q, k, v, mask), _reference(q, k, v, mask), known)
    upside_down = torch.arange(4) >= torch.arange(4)[:, None]
    found = answer(q, k[:, :, :4], v[:, :, :4], upside_down)
    makes_its_own = {
        "it makes a mask of its own; use the one it is given": _reference(
            q, k[:, :, :4], v[:, :, :4], upside_down.T
        )
    }
    expect_close(found, _reference(q, k[:, :, :4], v[:, :, :4], upside_down), makes_its_own)


attend = Exercise(
    _check_attend,
    _solve_attend,
    (
        "Five steps: repeat keys and values for the queries that share them, scores, scale, mask, softmax.",
        "`scores.masked_fill(~mask, float('-inf'))` before the softmax, over the last axis.",
    ),
)


def _solve_pool_heads(weight, n_heads, n_pooled):
    head_dim, dim = weight.shape[0] // n_heads, weight.shape[1]
    return weight.view(n_pooled, n_heads // n_pooled, head_dim, dim).mean(dim=1).flatten(0, 1)


def _check_pool_heads(answer):
    weight = random(6 * 4, 5)
    heads = weight.view(6, 4, 5)
    right = torch.stack([heads[:3].mean(0), heads[3:].mean(0)]).flatten(0, 1)
    known = {
        "heads far apart were pooled (0, 2, 4); those that share are neighbours: pool 0, 1, 2": torch.stack(
            [heads[0::2].mean(0), heads[1::2].mean(0)]
        ).flatten(0, 1),
        "the heads were added up; their mean keeps the size of the keys": 3 * right,
        "the first head of each was taken; asked was the mean": heads[[0, 3]].flatten(0, 1),
    }
    expect_close(answer(weight.clone(), 6, 2), right, known)
    expect_close(answer(weight.clone(), 6, 6), weight, {})
    if not torch.allclose(answer(weight.clone(), 6, 1), heads.mean(0), atol=1e-6):
        raise Mistake("pooled to one head, it should be the mean of all six")


pool_heads = Exercise(
    _check_pool_heads,
    _solve_pool_heads,
    (
        "Rows of `wk`: head 0 first, then head 1. Heads get an axis, those that are pooled another one.",
        "`weight.view(n_pooled, n_heads // n_pooled, head_dim, dim)`, and the mean over the second axis.",
    ),
)
