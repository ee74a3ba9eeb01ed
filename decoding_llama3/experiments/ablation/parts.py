"""The parts that the ablation lab puts in the place of Llama 3's own."""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding_llama3.attention import attend
from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.rope import apply_rope
from decoding_llama3.transformer import TransformerBlock


class PostNormBlock(TransformerBlock):
    """The block of the first transformer (arXiv:1706.03762): add first, then normalise the sum."""

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, " seq"],
        rotation: Float[Tensor, "seq pairs 2"],
        mask: Bool[Tensor, "seq length"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        h = self.attention_norm(x + self.attention(x, positions, rotation, mask, cache))
        return self.ffn_norm(h + self.feed_forward(h))


def attend_unscaled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by the plain q k^T: the queries undo the division by sqrt(head_dim) beforehand."""
    return attend(q * q.shape[-1] ** 0.5, k, v, mask)


def rotate_nothing(x: Tensor, rotation: Tensor) -> Tensor:
    """Queries and keys turned by no angle: nothing says where they stand.

    Through `apply_rope`, because `x` itself lies otherwise in memory, and the kernel of attention would add up in
    another order than it does for Llama 3.
    """
    no_turn = torch.tensor([1.0, 0.0], device=rotation.device)  # cosine and sine of 0
    return apply_rope(x, no_turn.expand_as(rotation))


class PositionedEmbedding(nn.Embedding):
    """Token vectors plus a vector for each position, for whole sequences from position 0."""

    def __init__(self, vocab_size: int, dim: int, positions: Float[Tensor, "length dim"]) -> None:
        super().__init__(vocab_size, dim)
        self.positions = positions  # a parameter if learned, else a buffer

    def forward(self, input: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        return super().forward(input) + self.positions[: input.shape[1]]


class Shifted(nn.Module):
    """A curve with a constant added."""

    def __init__(self, curve: nn.Module, constant: float) -> None:
        super().__init__()
        self.curve, self.constant = curve, constant

    def forward(self, x: Tensor) -> Tensor:
        return self.curve(x) + self.constant


ACTIVATIONS = {  # what bends the gate of a gated feed-forward, or the hidden numbers of one without
    "ReLU": nn.ReLU, "GELU": nn.GELU, "bilinear": nn.Identity, "GLU": nn.Sigmoid, "ReGLU": nn.ReLU,
    "GEGLU": nn.GELU, "silu + 1": partial(Shifted, nn.SiLU(), 1.0),
    "sigmoid - 1/2": partial(Shifted, nn.Sigmoid(), -0.5),
}  # fmt: skip


class GatedFeedForward(FeedForward):
    """SwiGLU with another activation in place of SiLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig, activation: nn.Module) -> None:
        super().__init__(config)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.w_down(self.activation(self.w_gate(x)) * self.w_up(x))


class UngatedFeedForward(nn.Module):
    """Widen, bend, narrow: two matrices in place of three, half again as wide, so that parameters are equal.

    An odd hidden_dim is rounded down: that costs one row and one column, dim parameters per layer.
    """

    def __init__(self, config: LlamaConfig, activation: nn.Module) -> None:
        super().__init__()
        width = 3 * config.hidden_dim // 2
        self.w_up = nn.Linear(config.dim, width, bias=False)
        self.activation = activation
        self.w_down = nn.Linear(width, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.w_down(self.activation(self.w_up(x)))


def sinusoidal_table(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """PE(t, 2i) = sin(t / 10000^(2i/dim)), PE(t, 2i+1) = cos of the same (Vaswani et al. 2017, 3.5)."""
    frequencies = 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # radians per position
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()
