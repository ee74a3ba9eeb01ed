"""Part 5 - the key/value cache: what one layer remembers of the tokens it has seen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class KVCache(nn.Module):
    """Store of one layer's rotated keys and its values, of fixed length, addressed by absolute position.

    Holds 2 * batch * n_kv_heads * length * head_dim elements from the start; queries are never stored.
    """

    def __init__(
        self,
        batch: int,
        n_kv_heads: int,
        length: int,
        head_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        shape = (batch, n_kv_heads, length, head_dim)
        self.register_buffer("keys", torch.zeros(shape, dtype=dtype, device=device), persistent=False)
        self.register_buffer("values", torch.zeros(shape, dtype=dtype, device=device), persistent=False)

    def update(
        self,
        positions: Int[Tensor, " seq"],
        keys: Float[Tensor, "batch kv_heads seq head_dim"],
        values: Float[Tensor, "batch kv_heads seq head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads length head_dim"], Float[Tensor, "batch kv_heads length head_dim"]]:
        """Write `keys` and `values` at `positions`; return the whole store, unwritten slots being zero."""
        self.keys.index_copy_(2, positions, keys)
        self.values.index_copy_(2, positions, values)
        return self.keys, self.values
