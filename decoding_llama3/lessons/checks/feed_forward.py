"""Part 6 - exercises on the feed-forward network."""

import torch
import torch.nn.functional as F

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, random


def _solve_swiglu(x, w_gate, w_up, w_down):
    return (F.silu(x @ w_gate.T) * (x @ w_up.T)) @ w_down.T


def _check_swiglu(answer):
    x, w_gate, w_up, w_down = random(2, 3, 8), random(12, 8, seed=1), random(12, 8, seed=2), random(8, 12, seed=3)
    gate, up = x @ w_gate.T, x @ w_up.T
    known = {
        "SiLU was put on the values; it belongs on the gate": (gate * F.silu(up)) @ w_down.T,
        "the gate is a sigmoid; SiLU is z times its sigmoid": (gate.sigmoid() * up) @ w_down.T,
        "the gate is a ReLU": (F.relu(gate) * up) @ w_down.T,
        "the gate is a GELU": (F.gelu(gate) * up) @ w_down.T,
        "gate and values were added; they are multiplied": (F.silu(gate) + up) @ w_down.T,
        "nothing bends the gate: that is the bilinear layer": (gate * up) @ w_down.T,
        "SiLU came after the product": F.silu(gate * up) @ w_down.T,
        "the gate is missing": F.silu(up) @ w_down.T,
        "the values are missing": F.silu(gate) @ w_down.T,
    }
    right = F.linear(F.silu(F.linear(x, w_gate)) * F.linear(x, w_up), w_down)
    expect_close(answer(x, w_gate, w_up, w_down), right, known, tolerance=1e-3)


swiglu = Exercise(
    _check_swiglu,
    _solve_swiglu,
    (
        "A linear layer without bias is `x @ w.T`.",
        "Two layers widen x; one of them goes through `F.silu`; multiply; the third narrows.",
    ),
)


def _solve_is_position_wise(function):
    x = torch.randn(1, 6, 8)
    for i in range(6):
        other = x.clone()
        other[:, i] += 1
        same = function(x) == function(other)
        same[:, i] = True
        if not same.all():
            return False
    return True


def _attention(x, mask=None):
    weights = x @ x.transpose(-2, -1) / x.shape[-1] ** 0.5
    return (weights if mask is None else weights.masked_fill(~mask, float("-inf"))).softmax(dim=-1) @ x


def _cases():
    w = random(8, 8)
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    last = torch.eye(6, dtype=torch.bool)
    last[:, -1] = True
    return {
        "a feed-forward works on each token alone": (lambda x: F.silu(x @ w) * x, True),
        "a norm works on each token alone": (lambda x: F.rms_norm(x, (8,)), True),
        "attention to all tokens mixes tokens, although a shuffle of its input only shuffles its result": (
            _attention,
            False,
        ),
        "causal attention mixes tokens: change an early one and look at the later ones": (
            lambda x: _attention(x, causal),
            False,
        ),
        "here every token attends to the last one: change each in turn": (lambda x: _attention(x, last), False),
        "subtracting the mean of all tokens mixes them": (lambda x: x - x.mean(dim=1, keepdim=True), False),
    }


def _check_is_position_wise(answer):
    for sentence, (function, right) in _cases().items():
        found = answer(function)
        if not isinstance(found, (bool, torch.Tensor)):
            raise Mistake(f"it returns {found!r}, where True or False was expected")
        if bool(found) != right:
            raise Mistake(f"it says {bool(found)}, but {sentence}")


is_position_wise = Exercise(
    _check_is_position_wise,
    _solve_is_position_wise,
    (
        "Change one token of the input. Which tokens of the result may change?",
        "To shuffle is not enough: attention without a mask, too, only shuffles its result.",
    ),
)
