"""Part 5 - what is shown of attention in trained models."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.attention import attend
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import attention_models as figures
from decoding_llama3.lessons.looks.attention.mechanism import places_of_repeated, subject_word
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present

START = 16  # the first few tokens have little to choose from
LENGTH = 48  # tokens of a tale


def handed_over(text: str, subject: Subject) -> None:
    """Without which block's attention a prediction is gone; whose, given to the next such word, brings it there.

    The word is the one that stands most often in `text`, the prediction what comes after its first occurrence.
    """
    text, places = places_of_repeated(subject, text)
    whole, rows, guess = attention_exchanged(subject, text, places)
    word, least, most = subject.words(text)[places[0]], int(rows[0].argmin()), int(rows[2].argmax())
    title = (
        f"Without the attention of {subject.name}'s block {least}, {rows[0, least]:.2f} of '{guess}' is left; "
        f"block {most}'s, handed over, gives it {rows[2, most]:.2f}"
    )
    names = (
        f"1. '{guess}' after the first '{word}', the attention of this block silenced",
        "2. all other words, the attention of this block silenced",
        f"3. '{guess}' after the second '{word}', what this block brought to the first handed over",
    )
    units = "probability", "rise, nats per token", "probability"
    alt = (
        "Bars for each block: a word's probability without its attention, the other words' loss, and handed over."
    )
    show_figure(figures.draw_handed_over(whole, rows, names, units, title), alt)


def blocks_that_matter(text: str, subject: Subject, most: int = 5) -> None:
    """The numbers of `handed_over` as a table, for the blocks without which the word is least likely."""
    text, places = places_of_repeated(subject, text)
    whole, rows, guess = attention_exchanged(subject, text, places)
    best = int(rows[2].argmax())
    shown = [
        [f"{block}", f"{rows[0, block]:.3f}", f"{rows[1, block]:+.2f}", f"{rows[2, block]:.3f}"]
        for block in rows[0].argsort()[:most].tolist()
    ]
    header = [
        f"{subject.name}'s block", f"'{guess}', the block silenced", "rise of the loss on all other words",
        f"'{guess}' at the second place, handed over",
    ]  # fmt: skip
    caption = (
        f"with all blocks '{guess}' has {whole:.3f}; handed over, block {best} gives it most, {rows[2, best]:.3f}"
    )
    show_table(shown, header, caption)


def attention_exchanged(
    subject: Subject, text: str, places: list[int]
) -> tuple[float, Float[Tensor, "three blocks"], str]:
    """The probability of the likeliest word at the first of `places` with all blocks; three rows, and the word.

    The rows, a number for each block: that probability without the block's attention; the rise of the loss on all
    other words of the text without it; and the word's probability at the second place, with the attention that the
    block had at the first.
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
        hidden = model.hidden(rows)
    probabilities = model.output(hidden[:, [first, second]]).float().softmax(-1).cpu()
    token = int(probabilities[-1, 0].argmax())
    found = probabilities[..., token]
    kept = [*range(blocks), -1]
    losses = probe.next_token_losses(model.output(hidden[kept]).float(), rows[kept]).cpu()
    others = torch.cat([losses[:, :first], losses[:, first + 1 :]], dim=1).mean(-1)
    three = torch.stack([found[:blocks, 0], others[:-1] - others[-1], found[blocks:-1, 1]])
    return found[-1, 0].item(), three, subject_word(subject, token)


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


def two_ways(subject: Subject, text: str, hidden: Mapping[str, Sequence[tuple[int, int]]]) -> dict[str, float]:
    """The likeliest word after `text` when, in all blocks, some tokens are hidden from others.

    `hidden` gives each attempt its pairs of places, (who attends, what is hidden from it).
    """
    ids, names = subject.ids(text), ["nothing hidden", *hidden]
    seen = torch.tril(torch.ones(len(names), ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device))
    for row, pairs in enumerate(hidden.values(), start=1):
        for who, what in pairs:
            seen[row, who, what] = False

    def attend_hidden(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return torch.cat([attend(q[i : i + 1], k[i : i + 1], v[i : i + 1], here) for i, here in enumerate(seen)])

    logits = with_parts(subject.model, attend=attend_hidden)(ids.repeat(len(names), 1))[:, -1]
    token = int(logits[0].argmax())
    found = dict(zip(names, logits.float().softmax(-1)[:, token].tolist(), strict=True))
    header = ["in all blocks", f"probability of {subject_word(subject, token)!r}"]
    show_table([[name, f"{share:.3f}"] for name, share in found.items()], header)
    return found


def attention_maps(
    subject: Subject, text: str, length: int | None = None
) -> Float[Tensor, "layers heads seq seq"]:
    """Who attends to whom in the first `length` tokens of `text`, in every head."""
    weights = probe.attention_weights(subject.model, subject.ids(text)[:, :length])
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
    panels = {
        subject.name: kinds_of_heads(attention_maps(subject, text, LENGTH)) for subject in present(*subjects)
    }
    told = [f"{name} gives {kinds['the first token'].mean():.0%}" for name, kinds in panels.items()]
    alt = "Grids of blocks by heads for each model: weight on the token before, on the first token, on itself."
    show_figure(
        figures.draw_head_kinds(panels, f"Of all its attention, {' and '.join(told)} to the first token"), alt
    )
