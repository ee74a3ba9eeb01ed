"""What a token or a prompt needs at least: bytes to read, floating-point operations to carry out."""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from decoding_llama3.benchmark.limits import Limits, block_shapes
from decoding_llama3.config import LlamaConfig
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True)
class Work:
    """What must be done at least: bytes to read from memory, floating-point operations to carry out."""

    n_bytes: int
    flops: int

    def seconds(self, limits: Limits) -> float:
        """The time of the slower of the two, the other running beside it."""
        return max(self.n_bytes / limits.read_bytes_per_s, self.flops / limits.flops_per_s)

    def bound_by(self, limits: Limits) -> str:
        """Which of the two takes longer: "memory" or "arithmetic"."""
        reading, computing = self.n_bytes / limits.read_bytes_per_s, self.flops / limits.flops_per_s
        return "memory" if reading > computing else "arithmetic"


def decode_work(config: LlamaConfig, weight_bytes: int, context: int, dtype: torch.dtype) -> Work:
    """What one more token takes after `context` others: every weight and the whole cache are read."""
    cache = config.kv_cache_bytes(context, dtype=dtype)
    return Work(weight_bytes + cache, count_flops(config, 1, before=context))


def prefill_work(config: LlamaConfig, weight_bytes: int, tokens: int) -> Work:
    """What a prompt takes: every weight is read once, and used for each token."""
    return Work(weight_bytes, count_flops(config, tokens))


def count_flops(config: LlamaConfig, tokens: int, before: int = 0) -> int:
    """Floating-point operations that read `tokens` after `before` others, logits after the last one only.

    Two per weight and token for the matrices. In attention two per feature of every head for each pair of a token
    and one that it attends to, in the scores and again in the values: the causal half, not the whole square.
    """
    matrices = 2 * tokens * sum(rows * columns for rows, columns in block_shapes(config))
    pairs = tokens * before + tokens * (tokens + 1) // 2
    attention = 4 * config.n_heads * config.head_dim * pairs
    return config.n_layers * (matrices + attention) + 2 * config.dim * config.vocab_size


def tensor_bytes(*modules: nn.Module) -> int:
    """Bytes of all parameters and buffers; those that a module shares within itself are counted once."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return sum(tensor.nbytes for tensor in tensors)


def read_bytes(model: Transformer) -> int:
    """Bytes of weights that one token reads: layers, norms and output, in int8 with their scales.

    Of the embedding table a token reads one row, which is not counted; where it is the output too, all of it is.
    """
    return tensor_bytes(model.layers, model.norm, model.output)
