"""Part 6 - solutions of the exercises on the feed-forward network, and the checks of the graded ones."""

import torch
import torch.nn.functional as F

from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_swiglu(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_gate(x)) * w_up(x))


def my_equal_hidden(dim, hidden):
    return 3 * hidden // 2


def my_swiglu_joined(x, w_gate_up, w_down):
    gate, up = (x @ w_gate_up.T).chunk(2, dim=-1)
    return (F.silu(gate) * up) @ w_down.T


def my_awake(x, w_gate, w_up, k):
    products = F.silu(x @ w_gate.T) * (x @ w_up.T)
    return products.abs().topk(k, dim=-1).indices


EQUAL_HIDDEN = SameAs(
    my_equal_hidden,
    cases=lambda: [
        Case((256, 768)),
        Case((4096, 14336), "for the 8B"),
        Case((6, 5), "where no whole number fits exactly"),
        Case((100, 4), "for another dim"),
    ],
    smallest=lambda: [(2, 2), (2, 1), (4, 2)],
    known={
        "the hidden size is the same; two matrices of it have fewer weights than three": (
            ("3 * hidden // 2", "hidden"),
        ),
        "it is two thirds; the network with fewer matrices must be the wider one": (
            ("3 * hidden // 2", "2 * hidden // 3"),
        ),
        "it is four times dim; the question is what has as many parameters as this SwiGLU": (
            ("3 * hidden // 2", "4 * dim"),
        ),
        "the two matrices are taken for square ones": (("3 * hidden // 2", "int((3 * dim * hidden / 2) ** 0.5)"),),
        "it is rounded up to a multiple of 256; the exact number was asked": (
            ("3 * hidden // 2", "-(-3 * hidden // 512) * 256"),
        ),
        "all three matrices go into one": (("3 * hidden // 2", "3 * hidden"),),
        "the number is rounded up: it must not have more": (("3 * hidden // 2", "-(-3 * hidden // 2)"),),
        "a fraction is returned; a hidden size is a whole number": (("//", "/"),),
        "the parameters are returned, not the hidden size": (("3 * hidden // 2", "3 * dim * hidden"),),
        "the parameters of a matrix count dim * hidden; dim falls out": (
            ("3 * hidden // 2", "3 * hidden * dim // 2"),
        ),
        "hidden is halved before it is tripled, which loses a half": (("3 * hidden // 2", "3 * (hidden // 2)"),),
        "two are counted as one half more than needed: one too many": (
            ("3 * hidden // 2", "3 * hidden // 2 + 1"),
        ),
        "it is eight thirds of dim, which is where SwiGLU's own size comes from": (
            ("3 * hidden // 2", "8 * dim // 3"),
        ),
    },
    shows_right=False,
)


def _joined(*shape: int, hidden: int, numbers=random, dtype=torch.float32) -> tuple:
    dim = shape[-1]
    return (
        numbers(*shape).to(dtype),
        numbers(2 * hidden, dim, seed=1).to(dtype),
        numbers(dim, hidden, seed=2).to(dtype),
    )


SWIGLU_JOINED = SameAs(
    my_swiglu_joined,
    cases=lambda: [
        Case(_joined(2, 3, 8, hidden=12), tolerance=1e-3),
        Case(_joined(4, 6, hidden=6), "where w_down is square", tolerance=1e-3),
        Case(_joined(5, 8, hidden=4), "where w_gate_up is square", tolerance=1e-3),
    ],
    smallest=lambda: [_joined(1, dim, hidden=hidden, numbers=small) for dim, hidden in ((1, 1), (1, 2), (2, 2))],
    known={
        "the halves are exchanged, or SiLU is on the values: the gate comes first, and SiLU is on the gate": (
            ("gate, up =", "up, gate ="),
        ),
        "gate and up are taken in turns; the first half of the rows is the gate": (
            ("(x @ w_gate_up.T).chunk(2, dim=-1)", "(x @ w_gate_up.T).unflatten(-1, (-1, 2)).unbind(-1)"),
        ),
        "SiLU is on both": (("F.silu(gate) * up", "F.silu(gate) * F.silu(up)"),),
        "SiLU comes after the product": (("F.silu(gate) * up", "F.silu(gate * up)"),),
        "SiLU is on everything before it is cut": (("(x @ w_gate_up.T)", "F.silu(x @ w_gate_up.T)"),),
        "the gate is a sigmoid": (("F.silu(gate)", "F.sigmoid(gate)"),),
        "gate and values are added": (("F.silu(gate) * up", "F.silu(gate) + up"),),
        "nothing bends the gate": (("F.silu(gate)", "gate"),),
        "w_down is missing": ((" @ w_down.T", ""),),
        "w_down is not transposed": (("w_down.T", "w_down"),),
        "w_gate_up is not transposed": (("w_gate_up.T", "w_gate_up"),),
        "the gate alone is used": (("F.silu(gate) * up", "F.silu(gate)"),),
        "the values alone are used": (("F.silu(gate) * up", "up"),),
    },
    kept=("x", "w_gate_up", "w_down"),
)


def _awake(seq: int, dim: int, hidden: int, k: int, numbers=random) -> tuple:
    return numbers(seq, dim), numbers(hidden, dim, seed=1), numbers(hidden, dim, seed=2), k


AWAKE = SameAs(
    my_awake,
    cases=lambda: [
        Case(_awake(3, 8, 12, 2)),
        Case(_awake(12, 8, 12, 5), "where tokens and features are equally many"),
        Case(_awake(2, 4, 6, 6), "where all are asked for"),
        Case(_awake(1, 4, 20, 1), "for one token and one feature"),
    ],
    smallest=lambda: [_awake(1, 1, 2, 1, small), _awake(1, 2, 3, 2, small), _awake(2, 2, 3, 2, small)],
    known={
        "the largest are taken, not the largest in absolute value: a strongly negative one is awake, too": (
            (".abs()", ""),
        ),
        "the gate alone is looked at; the product says what is written": ((" * (x @ w_up.T)", ""),),
        "the values alone are looked at; the product says what is written": (("F.silu(x @ w_gate.T) * ", ""),),
        "SiLU is missing": (("F.silu(x @ w_gate.T)", "(x @ w_gate.T)"),),
        "the gate is a sigmoid": (("F.silu(", "F.sigmoid("),),
        "SiLU is on the values": (("F.silu(x @ w_gate.T) * (x @ w_up.T)", "(x @ w_gate.T) * F.silu(x @ w_up.T)"),),
        "the values are returned; their numbers were asked": ((".indices", ".values"),),
        "the smallest are taken": (("topk(k, dim=-1)", "topk(k, dim=-1, largest=False)"),),
        "the order is rising; the largest comes first": ((".indices", ".indices.flip(-1)"),),
        "the numbers are sorted by themselves; the largest product comes first": (
            (".indices", ".indices.sort(dim=-1).values"),
        ),
        "the largest of all tokens together are taken; each token has its own": (
            ("products.abs()", "products.abs().mean(dim=0, keepdim=True).expand_as(products)"),
        ),
        "for each feature the tokens are searched; for each token the features": (
            ("topk(k, dim=-1)", "topk(k, dim=0)"),
        ),
        "one list for all tokens comes back; each token has its own": (
            ("products.abs().topk(k, dim=-1).indices", "products.abs().mean(dim=0).topk(k).indices"),
        ),
        "the last token alone is answered": (("products.abs()", "products.abs()[-1]"),),
        "a place for every feature comes back, its rank; the k numbers were asked": (
            ("topk(k, dim=-1).indices", "argsort(dim=-1, descending=True).argsort(dim=-1)[..., :k]"),
        ),
        "a mask of all features comes back; the numbers of k were asked": (
            (
                "products.abs().topk(k, dim=-1).indices",
                "products.abs() >= products.abs().topk(k, dim=-1).values[..., -1:]",
            ),
        ),
        "only the first of the k comes back": (("topk(k, dim=-1).indices", "argmax(dim=-1)"),),
        "one too many is taken": (("topk(k,", "topk(k + 1,"),),
        "gate and values are added": ((") * (x @ w_up.T)", ") + (x @ w_up.T)"),),
        "the result is (k, seq); (seq, k) was asked": ((".indices", ".indices.T"),),
    },
    kept=("x", "w_gate", "w_up"),
)

CHECKS = {"equal_hidden": EQUAL_HIDDEN, "swiglu_joined": SWIGLU_JOINED, "awake": AWAKE}
