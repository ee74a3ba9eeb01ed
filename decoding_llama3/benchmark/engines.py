"""What the benchmark measures: an engine, which is a model and a way to run it. Here, this package's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.benchmark.work import read_bytes
from decoding_llama3.inference.generator import Generator
from decoding_llama3.transformer import Transformer

OURS = {  # how the weights are stored, and whether the step of one token is compiled
    "eager": {"quantize": None, "compile": False},
    "compiled": {"quantize": None, "compile": True},
    "int8": {"quantize": "int8", "compile": True},
}


@runtime_checkable  # for the typed test run
class Session(Protocol):
    """A model in the middle of a text."""

    def read(self, tokens: Int[Tensor, "1 seq"]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `tokens`, which continue what was read before."""
        ...


@dataclass(frozen=True)
class Engine:
    """A model as the benchmark uses it.

    `start(context, max_new)` begins a text of which `context` tokens have been read, all with zeros for keys and
    values, and at most `max_new` will be; `weight_bytes` are the bytes of all weights that a token reads.
    """

    start: Callable[[int, int], Session]
    weight_bytes: int


def our_engine(model: Transformer, compile: bool = False) -> Engine:
    """This package's model as an engine; with `compile`, single tokens are read by a compiled step."""

    def start(context: int, max_new: int) -> Session:
        generator = Generator(model, compile, context + max_new, report=lambda line: None)
        generator.past = [0] * context  # the caches stay zeros there, which take as long to read as any numbers
        return generator

    return Engine(start, read_bytes(model))
