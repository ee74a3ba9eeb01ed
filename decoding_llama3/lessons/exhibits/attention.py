"""Part 5 - exhibits of the bug museum on attention."""

from collections.abc import Iterator

import torch

from decoding_llama3.attention import attend
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, opening, tale
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def attend_tiled(q, k, v, mask):
    n = q.shape[1] // k.shape[1]
    return attend(q, k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1), mask)


def attend_scaled_by_head_dim(q, k, v, mask):
    return attend(q / q.shape[-1] ** 0.5, k, v, mask)


def attend_with_a_square_mask(q, k, v, mask):
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return attend(q, k, v, mask)


def _tiled(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, n = tale(tokenizer), model.config.queries_per_kv
    now = loss_of(with_parts(model, attend=attend_tiled), tokens)
    yield f"every shape is right; loss {loss_of(model, tokens):.1f} before, {now:.1f} now"
    order = torch.arange(model.config.n_kv_heads).repeat(n).tolist()
    right = torch.arange(model.config.n_kv_heads).repeat_interleave(n).tolist()
    served = sum(a == b for a, b in zip(order, right, strict=True))
    yield f"of {len(right)} query heads in a block, {served} read the keys they were trained with"


def _saturated(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens = tale(tokenizer)
    yield f"loss {loss_of(with_parts(model, attend=attend_scaled_by_head_dim), tokens):.1f}, no error"
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 64, 128, generator=generator) for _ in range(2))
    for name, wrong in (("right", False), ("broken", True)):
        scores = (q / (128**0.5 if wrong else 1)) @ k.transpose(-2, -1) / 128**0.5
        keys = torch.special.entr(scores.softmax(-1)).sum(-1).mean().exp()
        yield f"{name}: a query of 128 random features spreads its weight over {keys:.0f} of 64 keys"


def _square(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, first = opening(tokenizer), 9
    whole, caches = model(tokens), model.make_caches(batch=1, length=tokens.shape[1])
    broken = with_parts(model, attend=attend_with_a_square_mask)
    pieces = [
        broken(tokens[:, start:end], torch.arange(start, end), caches)
        for start, end in ((0, first), (first, tokens.shape[1]))
    ]
    right = (torch.cat(pieces, dim=1) - whole)[0].abs().amax(dim=-1) < 1e-3
    yield f"a prompt read in two pieces of {first} and {tokens.shape[1] - first} tokens; in one piece all is right"
    yield f"right logits in the first piece: {int(right[:first].sum())}, in the second: {int(right[first:].sum())}"


EXHIBITS = {
    "tiled": Exhibit(
        _tiled,
        ("the mask is missing", "keys are repeated as 0 1 0 1, not 0 0 1 1", "the scale is missing"),
        "b",
        "repeat_interleave, not repeat: query heads 0 to 3 share key/value head 0.",
        attend_tiled,
    ),
    "saturated": Exhibit(
        _saturated,
        (
            "the scores are divided by head_dim, not its root",
            "the mask lets the future in",
            "the values are rotated",
        ),
        "a",
        "Divided by 128 and not by 11.3, all scores are nearly equal, and so are the weights: a query takes "
        "the mean of all values. With no scale at all it is the opposite: one key takes everything.",
        attend_scaled_by_head_dim,
    ),
    "square_mask": Exhibit(
        _square,
        ("the cache was not written", "keys are tiled", "the mask counts from 0 in each piece"),
        "c",
        "Query i of the second piece stands at 9 + i, but the mask lets it see keys 0 to i only. Make the mask "
        "from absolute positions.",
        attend_with_a_square_mask,
    ),
}
