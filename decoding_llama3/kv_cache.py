"""Part 5 - the key/value cache: what one layer remembers of the tokens it has seen.

Keys and values of past tokens never change under a causal mask, so they are stored once and
read at every later step (Shazeer 2019, arXiv:1911.02150, section 2.3).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class KVCache(nn.Module):
    """Store of one layer's rotated keys and its values, addressed by absolute position.

    Its length is fixed: 2 * batch * n_kv_heads * length * head_dim elements from the start.
    Queries are never stored.
    """

    keys: Tensor
    values: Tensor

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
        empty = torch.zeros(batch, n_kv_heads, length, head_dim, dtype=dtype, device=device)
        self.register_buffer("keys", empty, persistent=False)
        self.register_buffer("values", empty.clone(), persistent=False)

    def update(
        self,
        positions: Int[Tensor, " seq"],
        keys: Float[Tensor, "batch kv_heads seq head_dim"],
        values: Float[Tensor, "batch kv_heads seq head_dim"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads length head_dim"],
        Float[Tensor, "batch kv_heads length head_dim"],
    ]:
        """Write `keys` and `values` at `positions`; return the whole store, empty slots zero.

        A position outside the store raises IndexError on a CPU. A GPU cannot raise: there it
        ends all further work of the process, so whoever calls checks first.
        """
        self.keys.index_copy_(2, positions, keys)
        self.values.index_copy_(2, positions, values)
        return self.keys, self.values
