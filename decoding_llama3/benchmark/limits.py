"""What a machine does at best: how fast it reads memory, and how fast it multiplies matrices.

Two limits govern a language model. A decoded token reads every weight and the whole cache once, for two operations
per weight: memory decides. A prompt uses each weight for all its tokens: arithmetic decides. Both limits are
measured here, on the same threads or card as the model.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

import decoding_llama3.benchmark.clock as clock
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.memory import free_bytes

PRODUCT_TOKENS = 512  # tokens in the products that give the matrix-product rate


@dataclass(frozen=True)
class Limits:
    """What the machine does at best: bytes per second and floating-point operations per second."""

    read_bytes_per_s: float
    read_by: str  # the reduction that read fastest
    copy_bytes_per_s: float  # read and written bytes both counted
    flops_per_s: float


def measure_limits(
    config: LlamaConfig, device: str | torch.device, dtype: torch.dtype, n_bytes: int | None = None
) -> Limits:
    """The machine's limits, in float32 for memory and in `dtype` at the model's own shapes for arithmetic.

    Memory is read from a matrix of `n_bytes` (default: 512 MiB, on a card 2 GiB, at most an eighth of what is
    free), far beyond any cache, by the fastest of three reductions. The matrix-product rate is that of the seven
    matrices of a block on 512 tokens. Each is the best of several runs.
    """
    kind = torch.device(device).type
    n_bytes = n_bytes or min(2**31 if kind == "cuda" else 2**29, free_bytes(device) // 8)
    matrix = torch.ones(max(1, n_bytes // 2**14), 2**12, device=device)
    flat, vector = matrix.view(-1), matrix[0].clone()
    ways = {
        "sum": matrix.sum,
        "dot product": partial(torch.dot, flat, flat),
        "matrix times vector": partial(torch.mv, matrix, vector),
    }
    seconds = {name: clock.best_seconds(call, device) for name, call in ways.items()}
    fastest = min(seconds, key=lambda name: seconds[name])
    copy_seconds = clock.best_seconds(partial(torch.empty_like(matrix).copy_, matrix), device)
    return Limits(
        read_bytes_per_s=matrix.nbytes / seconds[fastest],
        read_by=fastest,
        copy_bytes_per_s=2 * matrix.nbytes / copy_seconds,
        flops_per_s=_product_rate(config, device, dtype),
    )


def mean_limits(before: Limits, after: Limits) -> Limits:
    """Their mean: what the machine did while something was measured in between."""
    names = ("read_bytes_per_s", "copy_bytes_per_s", "flops_per_s")
    means = {name: (getattr(before, name) + getattr(after, name)) / 2 for name in names}
    return dataclasses.replace(before, **means)


def block_shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """(rows, columns) of the seven matrices of a block."""
    dim, hidden = config.dim, config.hidden_dim
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return [(queries, dim), (keys, dim), (keys, dim), (dim, queries), (hidden, dim), (hidden, dim), (dim, hidden)]


def _product_rate(config: LlamaConfig, device: str | torch.device, dtype: torch.dtype) -> float:
    seconds, shapes = 0.0, block_shapes(config)
    for rows, columns in shapes:  # one at a time: a block of the 405B has 6 GB
        x, weight = (torch.randn(n, columns, device=device, dtype=dtype) for n in (PRODUCT_TOKENS, rows))
        seconds += clock.best_seconds(partial(F.linear, x, weight), device)
    return 2 * PRODUCT_TOKENS * sum(rows * columns for rows, columns in shapes) / seconds
