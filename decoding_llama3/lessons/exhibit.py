"""What an exhibit of the bug museum is, and on what its symptom is measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.practice.compare import difference
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.lessons.show import OPENING, TALE
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True)
class Seen:
    """What a measurement shows: `rows` are what is measured and what was found, `result` tells faults apart."""

    rows: dict[str, str]
    result: object


Symptom = Callable[[Transformer, Tokenizer, Callable], Seen]


@dataclass(frozen=True)
class Exhibit:
    """`symptom(model, tokenizer, function)` measures a model with `function` in the place of `fault`.

    `causes` are four: that of the letter `right` with its explanation, the others with why it cannot be them.
    `task` says what a mended function takes and gives. What comes of it, `result` in words, must be within
    `tolerance` of what comes of `healthy`.
    """

    setting: str
    symptom: Symptom
    causes: dict[str, str]
    right: str
    fault: Callable
    healthy: Callable
    task: str
    result: str = "the logits"
    tolerance: float = 1e-3


def checked(function: Callable[..., Tensor], like: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function`; where its result has not the shape and dtype of `like(*arguments)`, `Mistake` is raised."""

    def call(*arguments: object) -> Tensor:
        wanted, found = like(*arguments), function(*arguments)
        if found is None:
            raise Mistake("it returns None (a forgotten `return` looks the same)")
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise Mistake(difference(found, wanted))
        return found

    return call


def tale(tokenizer: Tokenizer, times: int = 1) -> Int[Tensor, "1 seq"]:
    """The ids of the tale, `times` times over, after begin-of-text."""
    return torch.tensor([tokenizer.encode(" ".join([TALE] * times), bos=True)])


def opening(tokenizer: Tokenizer) -> Int[Tensor, "1 seq"]:
    """The ids of the sentence that travels through the parts, after begin-of-text."""
    return torch.tensor([tokenizer.encode(OPENING, bos=True)])


def as_built(config: LlamaConfig) -> Transformer:
    """A model as it is built, the same each time; the random numbers of others stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Transformer(config).eval()


def right_after(found: Tensor, right: Tensor) -> list[bool]:
    """For each token of the one row, whether the logits after it are right."""
    return ((found - right)[0].abs().amax(dim=-1) < 1e-3).tolist()


def yes(so: bool) -> str:
    """How a table says whether something is so."""
    return "yes" if so else "no"
