"""Part 5 - grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.rope import apply_rope


def causal_mask(positions: Int[Tensor, " seq"], length: int) -> Bool[Tensor, "seq length"]:
    """True where the query at `positions[i]` may attend to the key at j: j <= positions[i]."""
    return torch.arange(length, device=positions.device) <= positions[:, None]


def attend_explicitly(
    q: Float[Tensor, "batch heads seq head_dim"],
    k: Float[Tensor, "batch kv_heads length head_dim"],
    v: Float[Tensor, "batch kv_heads length head_dim"],
    mask: Bool[Tensor, "seq length"] | None,
) -> tuple[Float[Tensor, "batch heads seq head_dim"], Float[Tensor, "batch heads seq length"]]:
    """The definition, step by step: softmax(q k^T / sqrt(head_dim)) v.

    Query heads 0, 1, ... share key/value head 0 until it has served heads / kv_heads of them,
    then head 1, ... A mask is True where a query may attend; without one the queries are a
    whole sequence, each attending to itself and those before. Returns result and weights.
    """
    if mask is None:
        mask = causal_mask(torch.arange(q.shape[2], device=q.device), k.shape[2])
    k, v = repeat_for_queries(q, k), repeat_for_queries(q, v)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (batch, heads, seq, length)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    weights = weights.type_as(q)
    return weights @ v, weights


def attend(
    q: Float[Tensor, "batch heads seq head_dim"],
    k: Float[Tensor, "batch kv_heads length head_dim"],
    v: Float[Tensor, "batch kv_heads length head_dim"],
    mask: Bool[Tensor, "seq length"] | None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """The same result in one fused kernel.

    With a mask, query heads that share keys become more rows of one head: nothing is copied.
    """
    if mask is None:
        k, v = repeat_for_queries(q, k), repeat_for_queries(q, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    queries_per_kv = q.shape[1] // k.shape[1]
    q = q.unflatten(1, (-1, queries_per_kv)).flatten(2, 3)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.repeat(queries_per_kv, 1))
    return out.unflatten(2, (queries_per_kv, -1)).flatten(1, 2)


def repeat_for_queries(
    q: Float[Tensor, "batch heads seq head_dim"],
    kv: Float[Tensor, "batch kv_heads length head_dim"],
) -> Float[Tensor, "batch heads length head_dim"]:
    """Each key/value head once for every query head that it serves: 0 0 0 0 1 1 1 1 ..."""
    return kv.repeat_interleave(q.shape[1] // kv.shape[1], dim=1)


class Attention(nn.Module):
    """Causal self-attention in which n_heads queries share n_kv_heads keys and values."""

    attend = staticmethod(attend)
    rotate = staticmethod(apply_rope)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_dim, kv_dim = (n * config.head_dim for n in (config.n_heads, config.n_kv_heads))
        self.wq = nn.Linear(config.dim, q_dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(q_dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, " seq"],
        rotation: Float[Tensor, "seq pairs 2"],
        mask: Bool[Tensor, "seq length"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        q, k, v = (self.split_heads(w(x)) for w in (self.wq, self.wk, self.wv))
        q, k = self.rotate(q, rotation), self.rotate(k, rotation)
        if cache is not None:
            k, v = cache.update(positions, k, v)
        return self.wo(self.attend(q, k, v, mask).transpose(1, 2).flatten(-2))

    def split_heads(
        self, x: Float[Tensor, "batch seq features"]
    ) -> Float[Tensor, "batch heads seq head_dim"]:
        """Cut the features of each token into its heads, and give the heads an axis."""
        # -1, not n_heads: under tensor parallelism each rank holds a slice of the heads.
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
