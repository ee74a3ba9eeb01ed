"""What an exhibit of the bug museum is, and the texts on which a fault is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.lessons.show import OPENING, TALE
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

Symptom = Callable[[Transformer, Tokenizer], Iterator[str]]


@dataclass(frozen=True)
class Exhibit:
    """`symptom` runs the broken code and yields what is seen; `causes` are a, b, c; `fault` is the broken code."""

    symptom: Symptom
    causes: tuple[str, str, str]
    right: str
    explanation: str
    fault: Callable


def tale(tokenizer: Tokenizer, times: int = 1) -> Int[Tensor, "1 seq"]:
    """The ids of the tale, `times` times over, after begin-of-text."""
    return torch.tensor([tokenizer.encode(" ".join([TALE] * times), bos=True)])


def opening(tokenizer: Tokenizer) -> Int[Tensor, "1 seq"]:
    """The ids of the sentence that travels through the parts, after begin-of-text."""
    return torch.tensor([tokenizer.encode(OPENING, bos=True)])
