"""A model of shapes alone: to be filled with weights, or asked for the shapes that they should have."""

import dataclasses
import re

import torch
from torch.overrides import TorchFunctionMode

from decoding_llama3.config import LlamaConfig
from decoding_llama3.transformer import Transformer


class _Unfilled(TorchFunctionMode):
    """Modules are made without random weights: on "meta", to draw them would load torch's compiler, for 1 s."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def empty_model(config: LlamaConfig) -> Transformer:
    """A model on the device "meta", in evaluation mode, without gradients."""
    with torch.device("meta"), _Unfilled():
        return Transformer(config).eval().requires_grad_(False)


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by name; the first layer stands for all, however many a configuration claims.

    Raises ValueError for sizes that no tensor can have.
    """
    try:
        state = empty_model(dataclasses.replace(config, n_layers=1)).state_dict()
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"no computer holds a model of dim {config.dim}, hidden_dim {config.hidden_dim} and vocab_size "
            f"{config.vocab_size}: is its configuration damaged?"
        ) from error
    return {name: tuple(weight.shape) for name, weight in state.items()}


def in_first_layer(name: str) -> str:
    """The name of the same tensor in the first layer; names outside of the layers stay."""
    return re.sub(r"\blayers\.[0-9]+\.", "layers.0.", name, count=1)
