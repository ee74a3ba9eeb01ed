"""Where a model of your own parts from the package's: the first operation whose results differ."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.attention import attend
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.inference.own_parts import with_own_parts
from decoding_llama3.lessons.practice.compare import difference, same
from decoding_llama3.lessons.practice.example import error_clause
from decoding_llama3.lessons.practice.outcome import Outcome, failed
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import apply_rope
from decoding_llama3.transformer import Transformer, TransformerBlock


def _norm(x, weight, eps):
    return RMSNorm.forward(SimpleNamespace(weight=weight, eps=eps), x)  # type: ignore[arg-type]


def _feed_forward(x, w_gate, w_up, w_down):
    return FeedForward.forward(SimpleNamespace(w_gate=w_gate, w_up=w_up, w_down=w_down), x)  # type: ignore[arg-type]


# What the package computes in the place of each own part, and how often a block does so.
OURS: dict[str, tuple[Callable, int]] = {
    "my_rms_norm": (_norm, 2),
    "my_apply_rope": (apply_rope, 2),
    "my_attend": (attend, 1),
    "my_swiglu": (_feed_forward, 1),
    "my_block": (TransformerBlock.forward, 1),
}


@dataclass(frozen=True)
class Parting:
    """The function `name`, at call number `call` in block `block`, gave `yours` where the package has `ours`."""

    name: str
    block: int
    call: int
    arguments: tuple
    ours: Tensor
    yours: Outcome

    @property
    def sentence(self) -> str:
        """Where it is and what can be seen of it."""
        seen = error_clause(self.yours) if self.yours.error else difference(self.yours.value, self.ours)
        return f"{self.name} is the first that differs, at its call {self.call} in block {self.block}: {seen}"


class _Parted(Exception):
    def __init__(self, parting: Parting) -> None:
        self.parting = parting


@torch.no_grad()
def first_parting(
    model: Transformer, parts: dict[str, Callable], tokens: Int[Tensor, "batch seq"]
) -> Parting | None:
    """Run `model` on `tokens`, and beside each of its steps your function of it, on the very same inputs.

    Returns the first step at which the results differ by more than rounding; None if none does. `parts` are
    functions by the names of OWN_PARTS; another name raises ValueError.
    """
    calls: Counter[str] = Counter()
    watched = {name: _watched(name, function, calls) for name, function in parts.items()}
    try:
        with_own_parts(model, watched)(tokens)
    except _Parted as parted:
        return parted.parting
    return None


def _watched(name: str, yours: Callable, calls: Counter[str]) -> Callable:
    ours, per_block = OURS.get(name, (yours, 1))

    def both(*arguments):
        block, call = divmod(calls[name], per_block)
        calls[name] += 1
        right = ours(*arguments)
        found = _outcome(yours, arguments)
        if found.error or found.late or not same(found.value, right):
            raise _Parted(Parting(name, block, call + 1, arguments, right, found))
        return right

    return both


def _outcome(function: Callable, arguments: tuple) -> Outcome:
    """Of `function` on copies of the tensors; modules are passed on, for a copy of a large block would not fit."""
    given = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
    try:
        return Outcome(function(*given))
    except _Parted:
        raise
    except Exception as error:
        return failed(function, error)
