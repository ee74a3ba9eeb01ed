"""Two blocks of attention alone, and random letters repeated: a circuit that copies forms while one watches.

Induction heads: Olsson et al. 2022, arXiv:2209.11895. How far apart the copies are differs from row to row; with
one fixed distance a single block succeeds, by looking back that many tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.learning import learn
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.transformer import Transformer

LETTERS = 24
SEQ = 32  # tokens of a row
PERIODS = range(5, 15)  # after how many tokens a row begins again


@dataclass(frozen=True)
class Moment:
    """After `step` steps: loss of what can be predicted, in nats per token, and the share predicted rightly."""

    step: int
    loss: float
    accuracy: float


class ZeroFeedForward(nn.Module):
    """A feed-forward network that adds nothing to the stream."""

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return torch.zeros_like(x)


def build_copier(n_layers: int, seed: int = 0) -> Transformer:
    """A Llama of `n_layers` blocks without feed-forward, 64 wide, two heads each, ready to be trained."""
    config = replace(
        LlamaConfig.from_preset("tiny"),
        dim=64,
        n_layers=n_layers,
        n_heads=2,
        n_kv_heads=2,
        hidden_dim=64,
        vocab_size=LETTERS,
        tie_embeddings=False,
    )
    model = with_parts(Transformer(config), feed_forward=lambda config: ZeroFeedForward(), new_weights=True)
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same weights on every device
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                std = 0.5 if name == "tok_embeddings.weight" else weight.shape[1] ** -0.5
                weight.copy_(torch.empty(weight.shape, device="cpu").normal_(std=std, generator=generator))
    return model


def rows_of_repeats(
    batch: int, generator: torch.Generator, periods: range = PERIODS, seq: int = SEQ
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, " batch"]]:
    """Rows of random letters that begin again after a number of tokens of their own; and those numbers."""
    drawn = torch.tensor(periods)[torch.randint(len(periods), (batch,), generator=generator)]
    letters = torch.randint(LETTERS, (batch, max(periods)), generator=generator)
    places = torch.arange(seq) % drawn[:, None]
    return letters.gather(1, places), drawn


def losses(
    model: Transformer, tokens: Int[Tensor, "batch seq"], periods: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, ""], float]:
    """Mean loss of the letters that repeat what was there, and the share of them that was predicted."""
    logits, targets = model(tokens)[:, :-1], tokens[:, 1:]
    places = torch.arange(1, tokens.shape[1], device=tokens.device)
    predictable = places > periods[:, None]  # the letter before is a repeat, too
    right = (logits.argmax(dim=-1) == targets)[predictable].float().mean().item()
    return F.cross_entropy(logits[predictable], targets[predictable]), right


def train_copier(
    model: Transformer, steps: int = 300, seed: int = 0, periods: range = PERIODS
) -> Iterator[Moment]:
    """Train `model`, a moment at every tenth step. Rows and result depend on the seed alone, on one machine."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(True)
    device = model.output.weight.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(1, steps + 1):
        tokens, drawn = (part.to(device) for part in rows_of_repeats(48, generator, periods))
        shares = []

        def loss(tokens: Tensor = tokens, drawn: Tensor = drawn, shares: list[float] = shares) -> Tensor:
            mean, share = losses(model, tokens, drawn)
            shares.append(share)
            return mean

        value = learn(model, [optimizer], loss, clip=None)
        if step % 10 == 0 or step == 1:
            yield Moment(step, value, shares[0])


@torch.no_grad()
def accuracy(model: Transformer, periods: range = PERIODS, seq: int = SEQ) -> float:
    """The share of predictable letters that are predicted, on new rows."""
    device = next((weight.device for weight in model.parameters()), "cpu")
    rows = rows_of_repeats(256, torch.Generator().manual_seed(99), periods, seq)
    return losses(model, *(part.to(device) for part in rows))[1]
