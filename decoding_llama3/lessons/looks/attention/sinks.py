"""Part 5, going further - what is shown of the first token, an attention sink."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.attention import repeat_for_queries
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.looks.attention.models import LENGTH, START
from decoding_llama3.lessons.show import show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.transformer import Transformer

KINDS = 3  # hidden in all blocks, hidden from a block on, muted from it on


def first_token(text: str, *subjects: Subject | None, controls: tuple[int, ...] = (4, 9)) -> None:
    """What it costs to hide the first token from all later ones, in all blocks or from the block on before which
    it is longest, and to mute its value there; how long its value is; whether the next token takes its place.

    Hidden: its weight is zero, and the others' add up to 1 without it. Muted: it keeps its weight, but its value
    is zero. The same is done with two tokens near it.
    """
    places = (0, *controls)
    for subject in present(*subjects):
        ids, words = subject.ids(text)[:, :LENGTH], subject.words(text)
        maps = probe.attention_weights(subject.model, ids)
        share = torch.stack([layer[0, :, START:].float().mean(dim=(0, 1)).cpu() for layer in maps]).mean(0)
        sizes, rows = lengths_by_block(subject.model, ids)[0], []
        start = int(sizes[:, 0].argmax())
        values = value_lengths(subject.model, ids, start)
        rises, hidden_sizes = rises_without_tokens(subject.model, ids, places, start)
        for place, costs in zip(places, rises, strict=True):
            name = f"{words[place]!r}, {'the first' if place == 0 else f'token {place}'}"
            told = (f"{round(cost, 2) + 0:+.2f}" for cost in costs)
            rows.append([name, f"{share[place]:.1%}", f"{values[place]:.2f} x", *told])
        caption = (
            f"{subject.name}. Weight: mean of all heads, tokens {START} to {ids.shape[1] - 1}. Length: mean over "
            f"the blocks from {start} on, in multiples of the median token's. Then the rise of the loss, in nats "
            "per token."
        )
        header = [
            "token", "weight it gets", "length of its value", "hidden in all blocks",
            f"hidden from block {start} on", f"muted from block {start} on",
        ]  # fmt: skip
        show_table(rows, header, caption)
        print(
            f"before block {start} the vector of the first token is {sizes[start, 0]:.1f} times as long as the "
            f"median one; if it is hidden in all blocks, the next token's is {hidden_sizes[0, start, 1]:.1f} "
            "times as long"
        )


def value_lengths(model: Transformer, ids: Tensor, start: int) -> Float[Tensor, " seq"]:
    """How long each token's values are, in multiples of their median over the tokens: a mean from `start` on."""
    names = probe.names_of(model, "attention.wv")[start:]
    with probe.recording(model, names) as record:
        model.hidden(ids)
    sizes = torch.stack([record.outputs[name][0].float().cpu().norm(dim=-1) for name in names])
    return (sizes / sizes.median(dim=-1, keepdim=True).values).mean(0)


def lengths_by_block(model: Transformer, ids: Tensor) -> Float[Tensor, "batch blocks seq"]:
    """How long each token's stream is before each block, as a multiple of the median of its row."""
    names = probe.names_of(model, "attention_norm")
    with probe.recording(model, names) as record:
        model.hidden(ids)
    sizes = torch.stack([record.inputs[name].float().cpu().norm(dim=-1) for name in names], dim=1)
    return sizes / sizes.median(dim=-1, keepdim=True).values


def rises_without_tokens(
    model: Transformer, ids: Tensor, places: Sequence[int], start: int
) -> tuple[list[list[float]], Float[Tensor, "places blocks seq"]]:
    """For each place, the rise of the loss after the first tokens: its token hidden in all blocks, hidden from
    block `start` on, and muted from it on; and the length of every token where it is hidden in all blocks.
    """
    rows = ids.repeat(1 + len(places) * KINDS, 1)  # the text as it is, then so many rows for each place
    blocks = itertools.count()

    def attend_without(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        from_start = next(blocks) % len(model.layers) >= start
        seq = torch.arange(q.shape[2], device=q.device)
        seen = (seq <= seq[:, None]).expand(len(q), -1, -1).clone()
        for i, place in enumerate(places):
            for row in (1 + i * KINDS, 2 + i * KINDS)[: 2 if from_start else 1]:
                seen[row, place + 1 :, place] = False
        k, v = repeat_for_queries(q, k), repeat_for_queries(q, v)
        scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).float().masked_fill(~seen[:, None], -torch.inf)
        weights = scores.softmax(-1).type_as(q)
        out = weights @ v
        for i, place in enumerate(places if from_start else ()):
            muted = 3 + i * KINDS
            out[muted, :, place + 1 :] -= weights[muted, :, place + 1 :, place, None] * v[muted, :, place, None]
        return out

    changed = with_parts(model, attend=attend_without)
    names = probe.names_of(changed, "attention_norm")
    with probe.recording(changed, names) as record:
        hidden = changed.hidden(rows)
    sizes = torch.stack([record.inputs[name][1::KINDS].float().cpu().norm(dim=-1) for name in names], dim=1)
    logits = model.output(hidden[:, START:-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), rows[:, START + 1 :], reduction="none").mean(-1)
    rises = (losses[1:] - losses[0]).unflatten(0, (len(places), KINDS)).tolist()
    return rises, sizes / sizes.median(dim=-1, keepdim=True).values
