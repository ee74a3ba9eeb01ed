"""Part 6 - the feed-forward network: SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig


class FeedForward(nn.Module):
    """Widen twice, gate one copy with the other, narrow: w_down(silu(w_gate(x)) * w_up(x)).

    Every token alone: nothing here reads a neighbour.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w_gate = nn.Linear(config.dim, config.hidden_dim, bias=False)  # w1 at Meta's
        self.w_up = nn.Linear(config.dim, config.hidden_dim, bias=False)  # w3
        self.w_down = nn.Linear(config.hidden_dim, config.dim, bias=False)  # w2

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))
