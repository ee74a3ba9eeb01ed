"""Part 7 - the block and the whole model.

Llama: Touvron et al. 2023, arXiv:2302.13971; Llama 3: arXiv:2407.21783.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding_llama3.attention import Attention, causal_mask
from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import rope_frequencies, rope_rotation, scale_frequencies


class TransformerBlock(nn.Module):
    """Attention, then feed-forward: each reads a normalised copy of the residual stream and
    adds its result to it.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Float[Tensor, "batch seq dim"],
        positions: Int[Tensor, " seq"],
        rotation: Float[Tensor, "seq pairs 2"],
        mask: Bool[Tensor, "seq length"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        h = x + self.attention(self.attention_norm(x), positions, rotation, mask, cache)
        return h + self.feed_forward(self.ffn_norm(h))


class Transformer(nn.Module):
    """Token ids in, logits of the next token out.

    Built with random weights; under `torch.device("meta")` with shapes alone, so that the 405B
    fits anywhere.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        positions: Int[Tensor, " seq"] | None = None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "batch seq vocab"]:
        """Logits after each of `tokens`, in float32; see `hidden` for `positions`, `caches`."""
        return self.output(self.hidden(tokens, positions, caches)).float()

    def hidden(
        self,
        tokens: Int[Tensor, "batch seq"],
        positions: Int[Tensor, " seq"] | None = None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "batch seq dim"]:
        """The residual stream after the last norm; `output` turns any row of it into logits.

        Without `caches`, `tokens` are a whole sequence at increasing `positions` (default 0, 1,
        ...). With them, one per layer, `tokens` continue what the caches hold, from the
        absolute `positions` on, and are written there. Caches with slots for `tokens` alone
        hold nothing else: they are a whole sequence again. Caches without positions, or too
        few, and tokens without a batch axis raise ValueError.
        """
        positions, mask = self._positions_and_mask(tokens, positions, caches)
        rotation = self.rotation_at(positions)
        x = self.tok_embeddings(tokens)
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, positions, rotation, mask, cache)
        return self.norm(x)

    def make_caches(self, batch: int, length: int) -> list[KVCache]:
        """One empty cache per layer, where the weights are, for `batch` sequences of up to
        `length` tokens.
        """
        like, config = self.norm.weight, self.config
        shape = (batch, config.n_kv_heads, length, config.head_dim)
        return [KVCache(*shape, dtype=like.dtype, device=like.device) for _ in self.layers]

    def rotation_at(self, positions: Int[Tensor, " seq"]) -> Float[Tensor, "seq pairs 2"]:
        """Cosine and sine of every pair's angle at `positions`, by the config's RoPE."""
        # Made anew at each forward: .to(bfloat16) would cast a stored table, which is 14.7 rad
        # wrong by position 8191.
        config = self.config
        freqs = rope_frequencies(config.head_dim, config.rope_theta, device=positions.device)
        if config.rope_scaling is not None:
            freqs = scale_frequencies(freqs, config.rope_scaling)
        return rope_rotation(freqs, positions)

    def _positions_and_mask(
        self, tokens: Tensor, positions: Tensor | None, caches: Sequence[KVCache] | None
    ) -> tuple[Tensor, Tensor | None]:
        if tokens.dim() != 2:
            raise ValueError(f"tokens have the axes (batch, seq), found {tuple(tokens.shape)}")
        if caches is None:
            whole = torch.arange(tokens.shape[1], device=tokens.device)
            return whole if positions is None else positions, None
        if positions is None:
            raise ValueError(
                "caches came without positions: pass each token's absolute position"
            )
        if len(caches) != len(self.layers):
            raise ValueError(
                f"found {len(caches)} caches for {len(self.layers)} layers: pass one each"
            )
        length = caches[0].keys.shape[2]
        return positions, causal_mask(positions, length) if tokens.shape[1] < length else None
