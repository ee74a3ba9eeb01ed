"""Part 4 - a model under another rotation than its own, and what a single query of a block looks at."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.attention import causal_mask
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.rope import apply_rope, rope_rotation
from decoding_llama3.transformer import Transformer


def losses_under(
    model: Transformer,
    ids: Int[Tensor, "batch seq"],
    frequencies: Float[Tensor, " pairs"],
    reach: int | None = None,
) -> Float[Tensor, "batch seq-1"]:
    """Loss in nats of each token but the first, where each block turns by `frequencies` in place of its own.

    With `reach` no block looks farther back than that many tokens, the token itself included.
    """
    places = torch.arange(ids.shape[1], device=ids.device)
    rotation = rope_rotation(frequencies.to(ids.device), places)
    mask = None
    if reach is not None:
        mask = causal_mask(places, len(places)) & (places[:, None] - places < reach)
    x = model.tok_embeddings(ids)
    for layer in model.layers:
        x = layer(x, places, rotation, mask)
    return probe.next_token_losses(model.output(model.norm(x)).float(), ids).cpu()


@dataclass(frozen=True)
class Asking:
    """One of the queries that a block makes of each token, with the keys that it is compared with."""

    subject: Subject
    block: int
    number: int
    q: Float[Tensor, "seq head_dim"]
    k: Float[Tensor, "seq head_dim"]

    @property
    def name(self) -> str:
        """What a figure calls it."""
        return f"block {self.block}, query {self.number}"

    def shares(self, turned: bool = True, q: Tensor | None = None, k: Tensor | None = None) -> Tensor:
        """How a token's attention is shared out: the softmax of its scores, a row for each token.

        `q` and `k` stand in for its own.
        """
        q, k = (own if other is None else other for own, other in ((self.q, q), (self.k, k)))
        if turned:
            rotation = rope_rotation(probe.pair_frequencies(self.subject.model), torch.arange(len(q)))
            q, k = (apply_rope(x[None, None], rotation)[0, 0] for x in (q, k))
        mask = causal_mask(torch.arange(len(q)), len(q))
        return (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf")).softmax(dim=-1)

    def one_back(self, turned: bool = True, q: Tensor | None = None, k: Tensor | None = None) -> float:
        """The mean share of the token before, over all tokens but the first three; arguments as in `shares`."""
        return self.shares(turned, q, k).diagonal(-1)[2:].mean().item()


def asking(subject: Subject, text: str, block: int, number: int) -> Asking:
    """Query `number` of a block for each token of `text`, and its keys, none of them turned yet."""
    q, k = probe.queries_and_keys(subject.model, subject.ids(text), rotated=False)[block]
    of_keys = number // subject.model.config.queries_per_kv
    return Asking(subject, block, number, q[0, number].float().cpu(), k[0, of_keys].float().cpu())


def looks_one_back(subject: Subject, text: str) -> Asking:
    """Of all queries of all blocks the one that gives the token before it the largest share of its attention."""
    config, found = subject.model.config, []
    for block, (q, k) in enumerate(probe.queries_and_keys(subject.model, subject.ids(text), rotated=False)):
        q, k = q[0].float().cpu(), k[0].float().cpu()
        found += [
            Asking(subject, block, number, q[number], k[number // config.queries_per_kv])
            for number in range(config.n_heads)
        ]
    return max(found, key=Asking.one_back)
