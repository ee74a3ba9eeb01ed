"""Weight-only int8: a quarter of float32's bytes, half of bfloat16's, read for every decoded token.

Not int4: the one of torchao 0.18 for CPUs is a prototype, slower than this (173 against 259 tokens/s, 125 million
weights, two AVX-512 cores), and moves tiny's predictions by 0.033 nats where int8 moves them by 0.00025.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from decoding_llama3.transformer import Transformer

CPU_SLICE = 2**20  # weights widened at once: 4 MiB in float32 stay in the cache, where the product finds them
GPU_SLICE = 2**26  # a GPU wants large pieces; and no more: the 8B's output layer alone would widen to 1.05 GB


class Int8Linear(nn.Module):
    """A bias-free `nn.Linear` that stores int8 rows and one scale an output feature: w = scale * int8.

    Symmetric, with the largest weight of a row at 127: the error of a weight is at most scale / 2.
    """

    def __init__(self, weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        # Each part goes to its place at once: collected first, parts between slices tore 2 GB of holes at the 8B.
        n, y = _rows(self.weight), x.new_empty(*x.shape[:-1], len(self.weight))
        starts = range(0, len(self.weight), n)
        for start, rows, scale in zip(starts, slices(self.weight), self.scale.split(n), strict=True):
            # Scaled before the product: in float16, sums of numbers up to 127 would pass 65,504.
            y[..., start : start + n] = F.linear(x, rows.to(x.dtype) * scale[:, None])
        return y


class Int8Embedding(nn.Module):
    """An `nn.Embedding` stored likewise: a token's vector is its int8 row times the scale of the row."""

    def __init__(self, weight: Int8[Tensor, "rows columns"], scale: Float[Tensor, " rows"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        scale = self.scale[tokens]
        return self.weight[tokens].to(scale.dtype) * scale[..., None]


def quantize_rows(
    weight: Float[Tensor, "rows columns"],
) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, " rows"]]:
    """Whole numbers from -127 to 127 and the float32 scale of each row: weight = scale * number, about."""
    quantized = torch.empty_like(weight, dtype=torch.int8)
    scale = torch.empty(len(weight), device=weight.device)
    for rows, numbers, steps in zip(slices(weight), slices(quantized), scale.split(_rows(weight)), strict=True):
        rows = rows.float()
        steps.copy_(rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127)
        numbers.copy_((rows / steps[:, None]).round())
    return quantized, scale


def slices(matrix: Tensor) -> tuple[Tensor, ...]:
    """A matrix in views of a few rows, each small enough to be copied in a wider dtype."""
    return matrix.split(_rows(matrix))


def _rows(matrix: Tensor) -> int:
    return max(1, (CPU_SLICE if matrix.device.type == "cpu" else GPU_SLICE) // matrix.shape[1])


TWINS = {nn.Linear: Int8Linear, nn.Embedding: Int8Embedding}


def int8_twin(layer: nn.Linear | nn.Embedding) -> Int8Linear | Int8Embedding:
    """The layer with its weights in int8; the scales keep their dtype, which is that of the arithmetic."""
    rows, scale = quantize_rows(layer.weight.detach())
    return TWINS[type(layer)](rows, scale.to(layer.weight.dtype))


def quantize_int8(model: Transformer) -> Transformer:
    """Swap every matrix of a model for its int8 twin, in place; the components never know.

    Tied matrices stay one. Norms keep their dtype. A model that is already quantised is left as it is.
    """
    done = {}  # by matrix, so that tied ones are quantised once
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) in TWINS:
                weight = child.weight
                if weight not in done:
                    done[weight] = int8_twin(child)
                setattr(module, name, TWINS[type(child)](done[weight].weight, done[weight].scale))
    return model
