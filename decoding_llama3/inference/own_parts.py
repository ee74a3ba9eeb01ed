"""A reader's own functions in the place of the package's: the parts of a file such as my_llama.py."""

import runpy
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer, TransformerBlock

# What each function of the file stands for.
OWN_PARTS = {
    "my_rms_norm": "norm",
    "my_apply_rope": "rotate",
    "my_attend": "attend",
    "my_swiglu": "feed_forward",
    "my_block": "block",
}


class OwnNorm(RMSNorm):
    """A norm that computes `function(x, weight, eps)`, with the weight of `old`."""

    def __init__(self, old: RMSNorm, function: Callable[..., Tensor]) -> None:
        nn.Module.__init__(self)
        self.eps, self.weight, self.function = old.eps, old.weight, function

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.function(x, self.weight, self.eps)


class OwnFeedForward(FeedForward):
    """A feed-forward network that computes `function(x, w_gate, w_up, w_down)`, with the three layers of `old`."""

    def __init__(self, old: FeedForward, function: Callable[..., Tensor]) -> None:
        nn.Module.__init__(self)
        self.w_gate, self.w_up, self.w_down, self.function = old.w_gate, old.w_up, old.w_down, function

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.function(x, self.w_gate, self.w_up, self.w_down)


class OwnBlock(TransformerBlock):
    """A block that computes `function(self, x, positions, rotation, mask, cache)`, with the parts of `old`."""

    def __init__(self, old: TransformerBlock, function: Callable[..., Tensor]) -> None:
        nn.Module.__init__(self)
        self.attention_norm, self.attention = old.attention_norm, old.attention
        self.ffn_norm, self.feed_forward = old.ffn_norm, old.feed_forward
        self.function = function

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, " seq"],
        rotation: Float[Tensor, "seq pairs 2"],
        mask: Bool[Tensor, "seq length"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        return self.function(self, x, positions, rotation, mask, cache)


def read_own_parts(path: str | PathLike) -> dict[str, Callable]:
    """The functions of the file `path` whose names stand in OWN_PARTS. Its code is run: it must be yours.

    Raises ValueError where the file is missing, cannot be run, or has none of these functions.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is no file: `keep` writes your functions into one, my_llama.py by default")
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be run: {reason}; mend it or keep it again") from error
    parts = {name: names[name] for name in OWN_PARTS if callable(names.get(name))}
    if not parts:
        wanted = ", ".join(OWN_PARTS)
        raise ValueError(f"{path} has none of the functions {wanted}: keep one that passed its check")
    return parts


def with_own_parts(model: Transformer, parts: dict[str, Callable]) -> Transformer:
    """A copy of `model`, sharing its weights, that computes with `parts`: functions by the names of OWN_PARTS.

    Raises ValueError for another name.
    """
    if unknown := sorted(parts.keys() - OWN_PARTS.keys()):
        raise ValueError(f"{unknown[0]} is no part of the model, which has {', '.join(OWN_PARTS)}")
    new = with_parts(model, attend=parts.get("my_attend"), rotate=parts.get("my_apply_rope"))
    exchanged: dict[str, tuple[type, Any]] = {
        "my_rms_norm": (RMSNorm, OwnNorm),
        "my_swiglu": (FeedForward, OwnFeedForward),
        "my_block": (TransformerBlock, OwnBlock),
    }
    for name, (kind, own) in exchanged.items():
        if name in parts:
            places = [place for place, module in new.named_modules() if isinstance(module, kind)]
            for place in places:
                new.set_submodule(place, own(new.get_submodule(place), parts[name]))
    return new
