"""Part 5 - what is shown of attention in trained models."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.attention import repeat_for_queries
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import attention_models as figures
from decoding_llama3.lessons.looks.attention.mechanism import places_of_repeated, subject_word
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.transformer import Transformer

START = 16  # the first few tokens have little to choose from


def handed_over(text: str, *subjects: Subject | None) -> None:
    """Without which block's attention a prediction is gone; whose, given to the next such word, brings it there.

    The word is the one that stands most often in `text`, the prediction what comes after its first occurrence.
    """
    panels, told = {}, []
    for subject in present(*subjects):
        chosen, places = places_of_repeated(subject, text)
        whole, without, handed, guess = attention_exchanged(subject, chosen, places)
        panels[subject.name] = whole, without, handed
        least, most = int(without.argmin()), int(handed.argmax())
        told.append(
            f"{subject.name}'s '{guess}' has {whole:.3f}, and {without[least]:.3f} without block {least}'s "
            f"attention; block {most}'s, handed over, makes {handed[most]:.3f} of it"
        )
    alt = "Bars for each block: the probability of a word without its attention, and where it is handed over."
    texts = "without this block's attention", "handed to the next place"
    show_figure(figures.draw_handed_over(panels, texts, "; ".join(told)), alt)


def attention_exchanged(
    subject: Subject, text: str, places: list[int]
) -> tuple[float, Float[Tensor, " blocks"], Float[Tensor, " blocks"], str]:
    """The probability of the likeliest word at the first of `places`: with all blocks, and without each one's
    attention; its probability at the second place, with the attention that each block had at the first; the word.
    """
    model, blocks = subject.model, len(subject.model.layers)
    rows = subject.ids(text).repeat(2 * blocks + 1, 1)  # row b: block b silenced; row blocks + b: handed over
    first, second = places[:2]
    with ExitStack() as stack:
        for block, name in enumerate(probe.names_of(model, "attention.wo")):

            def change(mixed: Tensor, block: int = block) -> Tensor:
                mixed = mixed.clone()
                mixed[block] = 0
                mixed[blocks + block, second] = mixed[blocks + block, first].clone()
                return mixed

            stack.enter_context(probe.intercepted(model, [name], change))
        hidden = model.hidden(rows)[:, [first, second]]
    probabilities = model.output(hidden).float().softmax(-1).cpu()
    token = int(probabilities[-1, 0].argmax())
    found = probabilities[..., token]
    return (
        found[-1, 0].item(),
        found[:blocks, 0],
        found[blocks:-1, 1],
        subject_word(subject, token),
    )


def block_heads(subject: Subject, text: str, block: int) -> None:
    """The likeliest word after `text`: its probability with each head of one block silenced, and left alone."""
    model, ids = subject.model, subject.ids(text)
    heads = model.config.n_heads
    keep = torch.ones(2 * heads + 2, heads, device=ids.device)
    keep[:heads] -= torch.eye(heads, device=ids.device)
    keep[heads : 2 * heads] = torch.eye(heads, device=ids.device)
    keep[-1] = 0
    with probe.intercepted(
        model,
        [f"layers.{block}.attention.wo"],
        lambda x: (x.unflatten(-1, (heads, -1)) * keep[:, None, :, None].type_as(x)).flatten(-2),
    ):
        last = model.hidden(ids.repeat(len(keep), 1))[:, -1]
    probabilities = model.output(last).float().softmax(-1).cpu()
    token = int(probabilities[-2].argmax())
    found = probabilities[:, token]
    without, alone, (whole, none) = found[:heads], found[heads : 2 * heads], found[-2:].tolist()
    best, second = alone.sort(descending=True).values[:2]
    title = (
        f"'{subject_word(subject, token)}' keeps at least {without.min():.2f} without any one head of block "
        f"{block}; head {int(alone.argmax())} alone is worth {best:.2f}, the next best {second:.2f}"
    )
    alt = "Two bar charts over the heads of a block: one head silenced, and one head left alone."
    show_figure(figures.draw_block_heads(without, alone, whole, none, title), alt)


def attention_maps(subject: Subject, text: str) -> Float[Tensor, "layers heads seq seq"]:
    """Who attends to whom in `text`, in every head."""
    weights = probe.attention_weights(subject.model, subject.ids(text))
    return torch.stack([layer[0].float().cpu() for layer in weights])


def kinds_of_heads(maps: Float[Tensor, "layers heads seq seq"]) -> dict[str, Float[Tensor, "layers heads"]]:
    """The mean weight that each head gives to three places, from the first tokens on that have a choice."""
    return {
        "the token before": maps.diagonal(-1, dim1=-2, dim2=-1)[..., START - 1 :].mean(dim=-1),
        "the first token": maps[..., START:, 0].mean(dim=-1),
        "itself": maps.diagonal(0, dim1=-2, dim2=-1)[..., START:].mean(dim=-1),
    }


def head_kinds(text: str, *subjects: Subject | None) -> None:
    """What each head of each model attends to."""
    panels = {subject.name: kinds_of_heads(attention_maps(subject, text)) for subject in present(*subjects)}
    told = []
    for name, kinds in panels.items():
        before = kinds["the token before"]
        layer, head = divmod(int(before.argmax()), before.shape[1])
        told.append(
            f"{name}'s head {layer}.{head} gives {before.max():.0%} to the token before, "
            f"all heads together {kinds['the first token'].mean():.0%} to the first"
        )
    alt = "Grids of blocks by heads for each model: weight on the token before, on the first token, on itself."
    show_figure(figures.draw_head_kinds(panels, "; ".join(told)), alt)


def first_token(
    text: str, *subjects: Subject | None, length: int = 48, controls: tuple[int, ...] = (4, 9)
) -> None:
    """What it costs to hide the first token from all later ones, to mute its value, and to exchange it.

    Hidden: its weight is zero, and the others' add up to 1 without it. Muted: it keeps its weight, but its value
    is zero. Exchanged: its value is that of another word in its place. The same is done with tokens near it.
    """
    places = (0, *controls)
    for subject in present(*subjects):
        ids, words = subject.ids(text)[:, :length], subject.words(text)
        others = [subject.tokenizer.encode(word)[0] for word in ("You", "The", "Once")]
        maps = probe.attention_weights(subject.model, ids)
        share = torch.stack([layer[0, :, START:].float().mean(dim=(0, 1)).cpu() for layer in maps]).mean(0)
        sizes, rows = sizes_in_the_middle(subject.model, ids), []
        rises = rises_without_tokens(subject.model, ids, places, others)
        for place, (hidden, muted, *exchanged) in zip(places, rises, strict=True):
            name = f"{words[place]!r}, {'the first' if place == 0 else f'token {place}'}"
            range_of = f"{min(exchanged):+.2f} to {max(exchanged):+.2f}"
            changed = f"{hidden:+.2f}", f"{muted:+.2f}", range_of
            rows.append([name, f"{sizes[place]:.1f} x", f"{share[place]:.1%}", *changed])
        caption = f"{subject.name}: rise of the loss on the rest of the text, in nats per token"
        header = ["token", "its vector, of the median", "weight it gets", "hidden", "muted", "exchanged, 3 words"]
        show_table(rows, header, caption)


def sizes_in_the_middle(model: Transformer, ids: Tensor) -> Float[Tensor, " seq"]:
    """How long each token's stream is half-way up, as a multiple of the median."""
    name = f"layers.{model.config.n_layers // 2}.attention_norm"
    with probe.recording(model, [name]) as record:
        model.hidden(ids)
    sizes = record.inputs[name][0].float().cpu().norm(dim=-1)
    return sizes / sizes.median()


def rises_without_tokens(
    model: Transformer, ids: Tensor, places: Sequence[int], others: Sequence[int]
) -> list[list[float]]:
    """For each place, the rise of the loss after the first tokens: its token hidden, muted, and with the value
    that each of `others` would have there.
    """
    each = 2 + len(others)
    rows = ids.repeat(1 + len(places) * each, 1)  # the text as it is, then so many rows for each place
    names = probe.names_of(model, "attention.wv")
    given = []  # for each place the values of the others there, a tensor a block, in the order in which they run
    for place in places:
        replaced = ids[:, : place + 1].repeat(len(others), 1)
        replaced[:, place] = torch.tensor(others, device=ids.device)
        with probe.recording(model, names) as record:
            model.hidden(replaced)
        given.append(iter([record.outputs[name][:, place] for name in names]))

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        seq = torch.arange(q.shape[2], device=q.device)
        seen = (seq <= seq[:, None]).expand(len(q), -1, -1).clone()
        for i, place in enumerate(places):
            seen[1 + i * each, place + 1 :, place] = False
        k, v = repeat_for_queries(q, k), repeat_for_queries(q, v)
        scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).float().masked_fill(~seen[:, None], -torch.inf)
        weights = scores.softmax(-1).type_as(q)
        out = weights @ v
        for i, (place, values) in enumerate(zip(places, given, strict=True)):
            muted, end = 2 + i * each, 1 + (i + 1) * each
            later = weights[muted:end, :, place + 1 :, place, None]
            by_head = next(values).unflatten(-1, (-1, v.shape[-1]))
            new = F.pad(
                by_head.repeat_interleave(model.config.queries_per_kv, dim=1), (0, 0, 0, 0, 1, 0)
            )  # first 0
            out[muted:end, :, place + 1 :] += later * (new - v[muted:end, :, place])[:, :, None]
        return out

    hidden = with_parts(model, attend=attend).hidden(rows)
    logits = model.output(hidden[:, START:-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), rows[:, START + 1 :], reduction="none").mean(-1)
    return (losses[1:] - losses[0]).unflatten(0, (len(places), each)).tolist()
