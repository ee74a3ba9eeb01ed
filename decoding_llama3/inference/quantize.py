"""Weight-only int8: a quarter of float32's bytes, half of bfloat16's, read for every decoded token."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from decoding_llama3.transformer import Transformer


class Int8Linear(nn.Module):
    """A bias-free `nn.Linear` that stores int8 rows and one scale an output feature: w = scale * int8.

    Symmetric, with the largest weight of a row at 127: the error of a weight is at most scale / 2.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        quantized, scale = quantize_rows(linear.weight)
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale.to(linear.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype)) * self.scale


def quantize_rows(
    weight: Float[Tensor, "rows columns"],
) -> tuple[Int8[Tensor, "rows columns"], Float[Tensor, " rows"]]:
    """Whole numbers from -127 to 127 and the float32 scale of each row: weight = scale * number, about."""
    scale = weight.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def quantize_int8(model: Transformer) -> Transformer:
    """Swap every `nn.Linear` inside the blocks, in place; the components never know."""
    for module in list(model.layers.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
