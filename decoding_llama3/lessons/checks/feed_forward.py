"""Part 6 - exercises on the feed-forward network."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random, small
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.lessons.research.feed_forward import silenced as silenced

FORMULA = "self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))"


def _as_function(forward: Callable) -> Callable:
    def swiglu(x, w_gate, w_up, w_down):
        return forward(SimpleNamespace(w_gate=w_gate, w_up=w_up, w_down=w_down), x)

    return swiglu


def linear(weight: Tensor) -> nn.Linear:
    """A layer without bias that has this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def swiglu_inputs(
    *shape: int, hidden: int = 12, numbers: Callable = random, dtype: torch.dtype = torch.float32
) -> tuple:
    """x and the three layers; the gate's numbers are large, so that its bend shows."""
    dim = shape[-1]
    weights = 2 * numbers(hidden, dim, seed=1), numbers(hidden, dim, seed=2), numbers(dim, hidden, seed=3)
    return numbers(*shape).to(dtype), *(linear(weight.to(dtype)) for weight in weights)


def _smallest_swiglu() -> Iterator[tuple]:
    for dim, hidden in ((1, 1), (1, 2), (2, 1), (2, 3)):
        yield swiglu_inputs(1, 1, dim, hidden=hidden, numbers=small)


swiglu = Exercise(
    SameAs(
        FeedForward.forward,
        cases=lambda: [
            Case(swiglu_inputs(2, 3, 8), tolerance=1e-3),
            Case(swiglu_inputs(4, 8, hidden=8), "where all three matrices are square", tolerance=1e-3),
            Case(swiglu_inputs(1, 2, 8, dtype=torch.bfloat16), "in bfloat16"),
        ],
        smallest=_smallest_swiglu,
        known={
            "SiLU is on the values; it belongs on the gate": (
                (FORMULA, "self.w_down(self.w_gate(x) * F.silu(self.w_up(x)))"),
            ),
            "SiLU is on both; the values pass as they are": (
                (FORMULA, "self.w_down(F.silu(self.w_gate(x)) * F.silu(self.w_up(x)))"),
            ),
            "SiLU comes after the product": ((FORMULA, "self.w_down(F.silu(self.w_gate(x) * self.w_up(x)))"),),
            "SiLU comes at the very end": ((FORMULA, "F.silu(self.w_down(self.w_gate(x) * self.w_up(x)))"),),
            "SiLU is on x, before the layers": ((FORMULA, "self.w_down(self.w_gate(F.silu(x)) * self.w_up(x))"),),
            "the gate is a sigmoid; SiLU is z times its sigmoid": (("F.silu(", "F.sigmoid("),),
            "the gate is a ReLU": (("F.silu(", "F.relu("),),
            "the gate is a GELU": (("F.silu(", "F.gelu("),),
            "the gate is a tanh": (("F.silu(", "F.tanh("),),
            "the gate is a softmax": ((FORMULA, "self.w_down(self.w_gate(x).softmax(dim=-1) * self.w_up(x))"),),
            "nothing bends the gate: that is the bilinear layer": (("F.silu(self.w_gate(x))", "self.w_gate(x)"),),
            "gate and values are added; they are multiplied": ((") * self.w_up", ") + self.w_up"),),
            "the gate is missing": ((FORMULA, "self.w_down(F.silu(self.w_up(x)))"),),
            "the values are missing: that is a network of two matrices": ((" * self.w_up(x)", ""),),
            "the values are x itself, not w_up(x)": (
                (FORMULA, "self.w_down(F.silu(self.w_gate(x)) * x.mean(-1, keepdim=True))"),
            ),
            "w_up reads the gate, not x": (
                (FORMULA, "self.w_down(F.silu(self.w_gate(x)) * self.w_up(F.silu(x)))"),
            ),
            "the gate's sigmoid has the wrong sign: SiLU is z * sigmoid(z)": (
                (FORMULA, "self.w_down(self.w_gate(x) * F.sigmoid(-self.w_gate(x)) * self.w_up(x))"),
            ),
            "w_down is missing: the result is still wide": ((FORMULA, "F.silu(self.w_gate(x)) * self.w_up(x)"),),
            "x is added: the residual connection is the block's": ((FORMULA, f"x + {FORMULA}"),),
            "w_down is applied to the gate alone, before the product": (
                (FORMULA, "self.w_down(F.silu(self.w_gate(x))) * self.w_down(self.w_up(x))"),
            ),
        },
        adapt=_as_function,
        kept=("x", "w_gate", "w_up", "w_down"),
    ),
    solution("feed_forward", "swiglu"),
    (
        "Two layers widen x; one of them goes through `F.silu`; multiply; the third narrows.",
        "The layers are called: `w_gate(x)`.",
    ),
)

equal_hidden = Exercise(
    Graded("feed_forward", "equal_hidden", lambda: (256, 768)),
    solution("feed_forward", "equal_hidden"),
    ("Count the weights of both, with dim and the hidden sizes as letters.", "What falls out of the equation?"),
    graded=True,
)

swiglu_joined = Exercise(
    Graded(
        "feed_forward", "swiglu_joined", lambda: (random(2, 3, 8), random(24, 8, seed=1), random(8, 12, seed=2))
    ),
    solution("feed_forward", "swiglu_joined"),
    ("One product gives both at once, side by side. Which half is the gate's?", "`both.chunk(2, dim=-1)`."),
    graded=True,
)

awake = Exercise(
    Graded("feed_forward", "awake", lambda: (random(3, 8), random(12, 8, seed=1), random(12, 8, seed=2), 2)),
    solution("feed_forward", "awake"),
    (
        "The product for every token first: (seq, hidden). A strongly negative one is awake, too.",
        "`topk` gives values and indices.",
    ),
    graded=True,
)
