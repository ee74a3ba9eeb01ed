"""Part 5 - exhibits of the bug museum on attention."""

from collections.abc import Callable

import torch
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.attention import attend, causal_mask
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, Seen, checked, opening, right_after, tale, yes
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

TASK = (
    "`q` is (batch, heads, seq, head_dim), `k` and `v` are (batch, kv_heads, length, head_dim), and `mask` is "
    "(seq, length), True where a query may attend. Return (batch, heads, seq, head_dim). You may call `dl.attend`."
)


def attend_tiled(q, k, v, mask):
    n = q.shape[1] // k.shape[1]
    return dl.attend(q, k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1), mask)


def attend_scaled_by_head_dim(q, k, v, mask):
    return dl.attend(q / q.shape[-1] ** 0.5, k, v, mask)


def attend_with_a_square_mask(q, k, v, mask):
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return dl.attend(q, k, v, mask)


def masked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function(q, k, v, mask)` with the mask always given, also where a whole sequence needs none."""
    function = checked(function, lambda q, k, v, mask: q[..., :1].expand(*q.shape[:-1], v.shape[-1]))

    def call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return function(q, k, v, causal_mask(torch.arange(q.shape[2]), k.shape[2]) if mask is None else mask)

    return call


def _heads(model: Transformer, tokenizer: Tokenizer, attending: Callable[..., Tensor]) -> Seen:
    net, tokens, calls = with_parts(model, attend=masked(attending)), tale(tokenizer), []

    def keep(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        calls.append((q, k, v, mask))
        return attend(q, k, v, mask)

    right = with_parts(model, attend=keep)(tokens)
    off = (masked(attending)(*calls[0]) - attend(*calls[0]))[0].abs().amax(dim=(1, 2))
    rows = {
        "loss on a tale, in nats per token": f"{loss_of(net, tokens):.1f}",
        "the logits after the first token are right": yes(right_after(net(tokens), right)[0]),
        f"of the {len(off)} heads of the first block, right are": str(int((off < 1e-3).sum())),
    }
    return Seen(rows, net(tokens))


def _spread(model: Transformer, tokenizer: Tokenizer, attending: Callable[..., Tensor]) -> Seen:
    net, tokens = with_parts(model, attend=masked(attending)), tale(tokenizer)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 32, 64, 128, generator=generator) for _ in range(2))
    weights = masked(attending)(q, k, torch.eye(64).expand(1, 32, 64, 64), None)  # one value per key: its share
    keys = torch.special.entr(weights[:, :, -1]).sum(-1).mean().exp()
    rows = {
        "loss on a tale, in nats per token": f"{loss_of(net, tokens):.1f}",
        "keys of 64 over which a random query spreads its weight": f"{keys:.0f}",
        "share of the weight that lies on later keys": f"{weights.triu(1).sum(-1).mean():.1%}",
    }
    return Seen(rows, net(tokens))


def _in_pieces(model: Transformer, tokenizer: Tokenizer, attending: Callable[..., Tensor]) -> Seen:
    net, tokens, first = with_parts(model, attend=masked(attending)), opening(tokenizer), 9
    whole, seq, places = model(tokens), tokens.shape[1], torch.arange(tokens.shape[1])
    caches, wanted = (model.make_caches(batch=1, length=seq) for _ in range(2))
    model(tokens, places, wanted)
    pieces = [net(tokens[:, each], places[each], caches) for each in (slice(first), slice(first, seq))]
    found = torch.cat(pieces, dim=1)
    right, kept = right_after(found, whole), (caches[0].keys - wanted[0].keys).abs().max() < 1e-3
    rows = {
        f"right logits in the first piece, of {first}": str(sum(right[:first])),
        f"right logits in the second piece, of {seq - first}": str(sum(right[first:])),
        f"right logits when all is read at once, of {seq}": str(sum(right_after(net(tokens), whole))),
        "the first block's cache ends up with the right keys": yes(bool(kept)),
    }
    return Seen(rows, found)


EXHIBITS = {
    "5.1": Exhibit(
        "A model loads and runs. Every shape is right.",
        _heads,
        {
            "the mask is missing": (
                "Without the mask every head would see later tokens, and no head would be right. Some are."
            ),
            "shared keys and values are repeated as 0 1 0 1, not 0 0 1 1": (
                "repeat_interleave, not repeat: the query heads of one group stand side by side. A head finds "
                "what it was trained with only where both orders agree."
            ),
            "the scale is missing": (
                "The first token has one key to attend to, which gets all the weight at any scale. Yet the "
                "logits after it are wrong."
            ),
            "the values are rotated, too": (
                "At position 0 a rotation changes nothing, so the logits after the first token would be right. "
                "They are wrong."
            ),
        },
        "b",
        attend_tiled,
        attend,
        TASK,
    ),
    "5.2": Exhibit(
        "A model runs, but badly. The two lower rows are measured with random queries and keys of 128 features.",
        _spread,
        {
            "the scores are divided by head_dim, not its root": (
                "Divided by 128 and not by 11.3, all scores are nearly equal, and so are the weights: a query "
                "takes the mean of all values."
            ),
            "the mask lets the future in": "Then later keys would get a share of the weight. They get none.",
            "the values are rotated": (
                "The weights come from queries and keys alone: with rotated values the weight would still be "
                "spread over as many keys as in the healthy model."
            ),
            "the scores are not divided at all": (
                "Larger scores make the softmax steeper, so the weight would lie on fewer keys than in the "
                "healthy model, not on more."
            ),
        },
        "a",
        attend_scaled_by_head_dim,
        attend,
        TASK,
    ),
    "5.3": Exhibit(
        "A prompt is read in two pieces, through a cache.",
        _in_pieces,
        {
            "the second piece is not written to the cache": (
                "Then the cache would lack keys at the end. It has the right ones."
            ),
            "shared keys are repeated as 0 1 0 1, not 0 0 1 1": (
                "That harms every token in every piece. The first piece is right, and so is the prompt read at "
                "once."
            ),
            "the second piece is rotated as if it began at position 0": (
                "Its keys would be turned by the wrong angles before they are stored. The cache has the right "
                "ones."
            ),
            "row i of the mask always allows columns 0 to i": (
                "Query i of the second piece stands at 9 + i, but the mask lets it see columns 0 to i only. Make "
                "the mask from absolute positions."
            ),
        },
        "d",
        attend_with_a_square_mask,
        attend,
        TASK,
    ),
}
