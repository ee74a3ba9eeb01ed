"""Part 3 - normalisation: RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide each token's vector by its root mean square, then scale every feature.

    y = x / sqrt(mean(x^2) + eps) * weight. Nothing is subtracted and there is no bias: one
    statistic per token. It is taken in float32, because in float16 squares overflow beyond
    |x| = 255. `weight` is learned.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)
        return normed.type_as(x) * self.weight
