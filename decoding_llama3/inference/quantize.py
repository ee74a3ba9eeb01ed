"""Weight-only int8: a quarter of float32's bytes, half of bfloat16's, read for every decoded token.

Not int4: the one of torchao 0.18 for CPUs is a prototype, slower than this (173 against 259 tokens per second, 125
million weights, two AVX-512 cores), and moves tiny's predictions by 0.033 nats where int8 moves them by 0.00025.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from decoding_llama3.transformer import Transformer

CPU_SLICE = 2**20  # weights widened at once: 4 MiB in float32 stay in the cache, where the product finds them
GPU_SLICE = 2**26  # a GPU wants large pieces; and no more: the 8B's output layer alone would widen to 1.05 GB
ROWS = 4  # of a matrix at once: their sums run side by side, and each number of x is fetched once for all four
PIECE = 2048  # columns of one sum, at most: torch sums more than 4,096 numbers with a slower, more careful loop


class Int8Weight(nn.Module):
    """A matrix as int8 rows and one float32 scale per row: weight = scale * int8.

    Symmetric, with the largest weight of a row at 127: a stored weight is off by at most scale / 2. The scales
    stay float32 when the model is cast, because rounded ones would break that bound.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.scale.device)
        return self


class Int8Linear(Int8Weight):
    """A bias-free `nn.Linear` of such a matrix; the product is exact up to the rounding of its own dtype."""

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        if x.device.type == "cuda" and x.numel() == x.shape[-1]:
            return _fused_row_product()(x, self.weight, self.scale)
        return int8_product(x, self.weight, self.scale)


class Int8Embedding(Int8Weight):
    """An `nn.Embedding` of such a matrix: a token's vector is its int8 row times the row's scale, in `dtype`."""

    like: Tensor

    def __init__(
        self, weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"], dtype: torch.dtype
    ) -> None:
        super().__init__(weight, scale)
        self.register_buffer("like", torch.empty(0, dtype=dtype, device=weight.device), persistent=False)

    def forward(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch columns"]:
        return (self.weight[tokens] * self.scale[tokens][..., None]).type_as(self.like)


def int8_product(
    x: Float[Tensor, "*batch columns"], weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"]
) -> Float[Tensor, "*batch rows"]:
    """x @ (scale * weight)^T, a few rows of the weight widened at a time."""
    # Times a power of two an int8 is exact in every dtype; what is left of the scale, 1/2 to 1, comes after the
    # product. Without the power, sums of numbers up to 127 would pass float16's 65,504.
    rest, exponent = torch.frexp(scale)
    power = torch.ldexp(torch.ones_like(scale), exponent.clamp(min=-24)).to(x.dtype)
    rest = scale / power.float()
    # Each part goes to its place at once: collected first, parts between slices tore 2 GB of holes at the 8B.
    n, y = _slice_rows(weight), x.new_empty(*x.shape[:-1], len(weight))
    for start, rows in zip(range(0, len(weight), n), weight.split(n), strict=True):
        part = slice(start, start + n)
        y[..., part] = F.linear(x, rows.to(x.dtype) * power[part, None]) * rest[part]
    return y


def row_product(
    x: Float[Tensor, "*one columns"], weight: Tensor, scale: Float[Tensor, " rows"] | None = None
) -> Float[Tensor, "*one rows"]:
    """`F.linear` of a single row, as products and sums in float32 that compile into one loop.

    A weight of fewer bytes is widened inside that loop, so that memory is read in the weight's own width.
    """
    columns = x.shape[-1]
    piece = next(n for n in range(min(columns, PIECE), 0, -1) if columns % n == 0)
    pieces = x.float().view(-1, piece)
    blocks = weight.view(-1, columns // piece, piece).chunk(ROWS)
    sums = [(pieces * block.float()).sum(dim=-1).sum(dim=-1) for block in blocks]
    y = torch.cat(sums).view(*x.shape[:-1], -1)
    return (y if scale is None else y * scale).type_as(x)


def one_row_product(
    x: Float[Tensor, "*one columns"], weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"]
) -> Float[Tensor, "*one rows"]:
    """The same for a GPU, whose compiler cuts the sums itself."""
    return ((x.float() * weight).sum(dim=-1) * scale).view(*x.shape[:-1], -1).type_as(x)


@cache
def _fused_row_product() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """One kernel that reads the int8 matrix once: widened first, a GPU would move nine bytes per weight."""

    return torch.compile(one_row_product, dynamic=True)


def quantize_rows(
    weight: Float[Tensor, "rows columns"],
) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, " rows"]]:
    """Whole numbers from -127 to 127 and the float32 scale of each row: weight = scale * number, about."""
    numbers = torch.empty_like(weight, dtype=torch.int8)
    scale = torch.empty(len(weight), device=weight.device)
    n = _slice_rows(weight)
    for rows, numbers_of_rows, steps in zip(weight.split(n), numbers.split(n), scale.split(n), strict=True):
        rows = rows.float()
        steps.copy_(rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127)
        numbers_of_rows.copy_((rows / steps[:, None]).round())
    return numbers, scale


def quantized(layer: nn.Linear | nn.Embedding) -> Int8Linear | Int8Embedding:
    """The layer with its matrix in int8, computing in the dtype that the matrix had."""
    return int8_layer(layer, *quantize_rows(layer.weight.detach()), layer.weight.dtype)


def int8_layer(
    layer: nn.Module, weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"], dtype: torch.dtype
) -> Int8Linear | Int8Embedding:
    """What stands for `layer` when its matrix is scale * weight."""
    return Int8Linear(weight, scale) if type(layer) is nn.Linear else Int8Embedding(weight, scale, dtype)


def is_quantizable(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Embedding]:
    """Whether `layer` is a matrix that int8 can stand for: a bias-free linear layer or an embedding."""
    return type(layer) is nn.Embedding or (type(layer) is nn.Linear and layer.bias is None)


def quantize_int8(model: Transformer) -> Transformer:
    """Put int8 in the place of every matrix of a model, which is changed and returned; the components never know.

    Tied matrices stay one. Norms keep their dtype. A model that is already quantised is left as it is.
    """
    done: dict[Tensor, Int8Weight] = {}  # by matrix, so that tied ones are quantised once
    for module in list(model.modules()):
        for name, child in module.named_children():
            if is_quantizable(child):
                if child.weight not in done:
                    done[child.weight] = quantized(child)
                first = done[child.weight]
                setattr(module, name, int8_layer(child, first.weight, first.scale, child.weight.dtype))
    return model


def _slice_rows(matrix: Tensor) -> int:
    """How many rows of a matrix are widened at once."""
    return max(1, (CPU_SLICE if matrix.device.type == "cpu" else GPU_SLICE) // matrix.shape[1])
