"""Part 4 - rotary position embedding, RoPE (Su et al. 2021, arXiv:2104.09864).

A query or key vector is cut into adjacent pairs (x0, x1), (x2, x3), ... as in the paper and in
Meta's checkpoints, and each pair is rotated by an angle proportional to its position. Hugging
Face pairs feature i with i + head_dim/2 instead; its weights are reordered once, on load.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.config import RopeScaling


def rope_frequencies(
    head_dim: int, theta: float, *, device: torch.device | str | None = None
) -> Float[Tensor, " pairs"]:
    """Frequency of each pair, in radians per position: theta^(-2i/head_dim), always float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    # A reciprocal, as Meta and Hugging Face compute it: theta ** -exponents differs by one ulp,
    # which is 5e-4 rad at position 9,000.
    return 1.0 / theta**exponents


def scale_frequencies(
    freqs: Float[Tensor, " pairs"], scaling: RopeScaling
) -> Float[Tensor, " pairs"]:
    """Llama 3.1 (arXiv:2407.21783): divide low frequencies by `factor`, keep high ones.

    Pairs that turn fewer than `low_freq_factor` times over the original context are low, more
    than `high_freq_factor` times high; in between the two are blended linearly.
    """
    turns = scaling.original_context * freqs / (2 * math.pi)  # over the original context
    blend_width = scaling.high_freq_factor - scaling.low_freq_factor
    keep = ((turns - scaling.low_freq_factor) / blend_width).clamp(0, 1)
    return keep * freqs + (1 - keep) * freqs / scaling.factor


def rope_rotation(
    freqs: Float[Tensor, " pairs"], positions: Int[Tensor, " seq"]
) -> Float[Tensor, "seq pairs 2"]:
    """Cosine and sine of every angle position * frequency, in float32."""
    angles = torch.outer(positions.float(), freqs)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def apply_rope(
    x: Float[Tensor, "batch heads seq head_dim"], rotation: Float[Tensor, "seq pairs 2"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotate each feature pair of `x` by the angle of its position; lengths are kept."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (batch, heads, seq, pairs)
    cos, sin = rotation.unbind(-1)  # (seq, pairs)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)
