"""Single attention heads: what each looks at, what it adds to a prediction, what the model is without it.

Induction heads, which continue a text as it went on before: Olsson et al. 2022, arXiv:2209.11895.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding_llama3.inspect.probe import (
    attention_weights,
    check_index,
    intercepted,
    next_token_losses,
    recording,
    share_of_logit,
)
from decoding_llama3.transformer import Transformer


def repeated_random_tokens(
    ids: Sequence[int],
    bos_id: int,
    *,
    batch: int,
    seq: int,
    generator: torch.Generator,
    periods: range = range(16, 65),
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, " batch"]]:
    """Rows of begin-of-text and random tokens, repeated until the row is full; and the period of each, in tokens.

    A row draws its period from `periods` and that many different tokens from `ids`, so that each has one place
    in a copy. A period that varies tells a head that finds the same token from one that looks back a fixed
    distance. Raises ValueError where `periods`, `ids` and the length do not allow that.
    """
    longest = max(periods)
    if min(periods) < 2 or longest > len(ids):
        raise ValueError(
            f"{periods} of periods must lie from 2 to the {len(ids)} ids drawn from: shorten them, or widen ids"
        )
    if bos_id in ids:
        raise ValueError(f"begin-of-text, {bos_id}, is one of the ids to draw: leave it out of them")
    if seq < 1 + 2 * longest:
        raise ValueError(f"seq {seq} is too short for two copies of {longest} tokens: take {1 + 2 * longest}")
    drawn = torch.tensor(periods)[torch.randint(len(periods), (batch,), generator=generator)]
    tokens = torch.full((batch, seq), bos_id)
    for row, period in zip(tokens, drawn.tolist(), strict=True):
        copied = torch.tensor(ids)[torch.randperm(len(ids), generator=generator)[:period]]
        row[1:] = copied[torch.arange(seq - 1) % period]
    return tokens, drawn


@torch.no_grad()
def head_scores(
    model: Transformer, tokens: Int[Tensor, "batch seq"], periods: Int[Tensor, " batch"]
) -> dict[str, Float[Tensor, "layers heads"]]:
    """Mean attention, from 0 to 1, that each head pays to four places in repeated random tokens.

    "previous": the token before. "first": position 0. "duplicate": where the same token last stood.
    "induction": the token after that one, which comes next. All but "previous" are asked of the later copies
    only, where there is much to choose from. A head that shares its attention among several copies is counted
    for the last one: two copies, not more, let a perfect head reach 1. Rows without a later copy raise
    ValueError.
    """
    later = _in_later_copy(tokens, periods)[:, :, None]  # (batch, seq, 1)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    distance = (position[:, None] - position).expand(len(tokens), -1, -1)  # from query back to key
    period = periods[:, None, None]
    pairs = {
        "previous": distance == 1,
        "first": later & (position == 0),
        "duplicate": later & (distance == period),
        "induction": later & (distance == period - 1),
    }
    maps = [weights.movedim(1, -1) for weights in attention_weights(model, tokens)]  # (batch, seq, seq, heads)
    return {kind: torch.stack([w[chosen].mean(dim=0) for w in maps]) for kind, chosen in pairs.items()}


@torch.no_grad()
def repeat_losses(
    model: Transformer, tokens: Int[Tensor, "batch seq"], periods: Int[Tensor, " batch"]
) -> tuple[float, float]:
    """Mean loss, in nats per token, of the first copy and of the later copies.

    The first token of the second copy is in neither: nothing before it says that the text begins again. Rows
    without a later copy raise ValueError.
    """
    losses = next_token_losses(model(tokens), tokens)  # of the tokens at 1, 2, ...
    later = _in_later_copy(tokens, periods)
    predictable = later[:, 1:] & later[:, :-1]  # the token before stands in a later copy too
    return losses[~later[:, 1:]].mean().item(), losses[predictable].mean().item()


@torch.no_grad()
def head_attribution(
    model: Transformer, tokens: Int[Tensor, "batch seq"], position: int, token: int, layer: int
) -> Float[Tensor, "batch heads"]:
    """The share of one block's attention in `probe.logit_attribution`, split into its heads."""
    check_index("position", position, tokens.shape[1])
    check_index("layer", layer, len(model.layers))
    name, config = f"layers.{layer}.attention.wo", model.config
    with recording(model, [name, "norm"]) as record:
        model.hidden(tokens)
    side_by_side = record.inputs[name][:, position]  # (batch, heads * head_dim)
    # wo is linear: fed with one head's features alone, it gives what that head writes.
    alone = torch.eye(config.n_heads).repeat_interleave(config.head_dim, dim=1).to(side_by_side)  # (heads, dim)
    added = model.get_submodule(name)(side_by_side * alone[:, None])  # (heads, batch, dim)
    return share_of_logit(model, added, record.inputs["norm"][:, position], token).T


@contextmanager
def without_heads(model: Transformer, heads: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Silence the given (layer, head) pairs while the context is open: wo reads zeros in their place."""
    silenced = defaultdict(list)
    for layer, head in heads:
        check_index("layer", layer, len(model.layers))
        check_index("head", head, model.config.n_heads)
        silenced[layer].append(head)
    with ExitStack() as stack:
        for layer, chosen in silenced.items():

            def silence(side_by_side: Tensor, chosen: list[int] = chosen) -> Tensor:
                by_head = side_by_side.unflatten(-1, (model.config.n_heads, -1)).clone()
                by_head[..., chosen, :] = 0
                return by_head.flatten(-2)

            stack.enter_context(intercepted(model, [f"layers.{layer}.attention.wo"], silence))
        yield


def _in_later_copy(tokens: Int[Tensor, "batch seq"], periods: Int[Tensor, " batch"]) -> Bool[Tensor, "batch seq"]:
    """True where a token stands in the second copy or beyond."""
    position, period = torch.arange(tokens.shape[1], device=tokens.device), periods[:, None]
    later = position > period
    repeats = tokens == tokens.gather(1, (position - period).clamp(min=0))
    fits = later[:, -1] & (repeats | ~later).all(dim=1)
    if not fits.all():
        row = int(fits.int().argmin())
        raise ValueError(
            f"row {row} does not repeat after {periods[row]} tokens: pass tokens and periods as drawn together"
        )
    return later
