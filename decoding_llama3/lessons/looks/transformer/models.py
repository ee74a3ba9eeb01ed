"""Part 7 - what is shown of trained models as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.experiments import ablation
from decoding_llama3.experiments.ablation.statistics import Difference
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import transformer_models as figures
from decoding_llama3.lessons.show import held_out_ids, is_slow, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present, token_strings
from decoding_llama3.transformer import Transformer, TransformerBlock

Writes = dict[str, Float[Tensor, "batch seq dim"]]


def journey(text: str, *subjects: Subject | None) -> list[figures.Journey]:
    """How a model comes to its next word: shapes, what it would say at each depth, attribution and silencing.

    A figure for each model. Returns what was drawn.
    """
    made = []
    for subject in present(*subjects):
        found = make_journey(subject, text)
        loudest, missed = found.parts[found.loudest], [found.parts[i] for i in found.missed]
        base, worst, read = found.chances[-1], found.missed[0], "".join(subject.words(text)[-3:]).strip()
        title = (
            f"{subject.name}, {found.word!r} after {read!r}: {loudest} adds most "
            f"({found.added[found.loudest]:+.1f} of {found.added.sum():+.1f}); {' and '.join(missed)} are missed "
            f"most (p from {chance(base)} to {chance(base - found.lost[worst])} and "
            f"{chance(base - found.lost[found.missed[1]])})"
        )
        alt = (
            "Four panels with a row for each part of the model, from the embedding down: the stream, the word "
            "read off it, what each part adds, and what is lost without it."
        )
        show_figure(figures.draw_journey(found, title), alt)
        made.append(found)
    return made


def chance(p: Float[Tensor, ""]) -> str:
    """A probability in three digits where it is nearly 0 or 1, else in two."""
    return f"{p:.2f}" if 0.1 <= p <= 0.985 else f"{p:.3f}"


def make_journey(subject: Subject, text: str, draws: int = 8) -> figures.Journey:
    """The next word after `text`, followed from part to part."""
    model, ids = subject.model, subject.ids(text)
    stream = probe.residual_stream(model, ids)
    lens = torch.stack([model.output(model.norm(x[0, -1])).float().softmax(dim=-1) for x in stream.values()])
    token = int(lens[-1].argmax())
    added = torch.stack(list(probe.logit_attribution(model, ids, ids.shape[1] - 1, token).values()))[:, 0]
    draws = 2 if is_slow(model) else draws
    silent, exchanged = silenced(model, ids, token, other_writes(subject, ids.shape[1], draws))
    base = lens[-1, token].cpu()
    nothing = torch.full((1,), torch.nan)
    return figures.Journey(
        parts=["embedding", *subject.places()[:-1]],
        sizes=torch.stack([x[0, -1].float().square().mean().sqrt() for x in stream.values()]).cpu(),
        chances=lens[:, token].cpu(),
        said=token_strings(lens.argmax(dim=-1), subject.tokenizer),
        added=added.float().cpu(),
        lost=torch.cat([nothing, base - silent.cpu()]),
        exchanged=torch.cat([nothing.expand(draws, 1), base - exchanged.cpu()], dim=1),
        shapes=(
            f"ids ({ids.shape[1]},)",
            f"({ids.shape[1]}, {model.config.dim:,})",
            f"logits ({ids.shape[1]}, {model.config.vocab_size:,})",
        ),
        word=token_strings(torch.tensor([token]), subject.tokenizer)[0],
    )


def other_writes(subject: Subject, seq: int, draws: int) -> Writes:
    """What each part writes for other texts: `draws` places of an unseen book, `seq` tokens each."""
    rows = held_out_ids(subject.model, subject.tokenizer, windows=1, length=20 * draws + seq)[0]
    starts = torch.arange(draws, device=rows.device) * 20 + 1
    ids = rows[starts[:, None] + torch.arange(seq, device=rows.device)]
    if subject.tokenizer.encode("a", bos=True)[0] == subject.tokenizer.bos_id:
        ids = torch.cat([torch.full_like(ids[:, :1], subject.tokenizer.bos_id), ids[:, 1:]], dim=1)
    return probe.writes(subject.model, ids)


def silenced(
    model: Transformer, ids: Int[Tensor, "1 seq"], token: int, others: Writes
) -> tuple[Float[Tensor, " parts"], Float[Tensor, "draws parts"]]:
    """The probability of `token` where each part writes nothing, and where it writes as for other texts.

    A batch that grows by a row for each part, and for each draw, where these begin to differ from the first row.
    """
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation = model.rotation_at(positions)
    puts = {part: torch.cat([torch.zeros_like(written[:1]), written]) for part, written in others.items()}
    x = model.tok_embeddings(ids)
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, TransformerBlock)
        h = x + layer.attention(layer.attention_norm(x), positions, rotation)
        h = torch.cat([h, x[:1] + puts[f"{i}.attention"]])
        x = h + layer.feed_forward(layer.ffn_norm(h))
        x = torch.cat([x, h[:1] + puts[f"{i}.feed_forward"]])
    few = model.norm(x[1:, -1]).split(64)  # at once: logits are large
    chances = torch.cat([model.output(rows).float().softmax(dim=-1)[:, token] for rows in few])
    by_part = chances.view(2 * len(model.layers), -1)
    return by_part[:, 0], by_part[:, 1:].T


@contextmanager
def _silent(part: torch.nn.Module) -> Iterator[None]:
    """While the context is open, `part` writes zeros."""

    def write(module: torch.nn.Module, args: tuple, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    handle = part.register_forward_hook(write)
    try:
        yield
    finally:
        handle.remove()


def told(subject: Subject, text: str, heard: int = 3) -> dict[str, list[float]]:
    """What the parts that add most to the next word still add when one attention is silenced, each in turn.

    Returns these numbers by the attention that is silent, "none" first.
    """
    model, ids = subject.model, subject.ids(text)
    token, place = int(model(ids)[0, -1].argmax()), ids.shape[1] - 1
    whole = probe.logit_attribution(model, ids, place, token)
    most = sorted(whole, key=lambda name: -whole[name].item())[:heard]
    found = {"none": [whole[name].item() for name in most]}
    for i in range(model.config.n_layers):
        with _silent(model.get_submodule(f"layers.{i}.attention")):
            left = probe.logit_attribution(model, ids, place, token)
        found[f"attention {i}"] = [left[name].item() for name in most]
    rows = [[name, *(f"{value:+.1f}" for value in values)] for name, values in found.items()]
    header = ["silenced", *(" ".join(reversed(name.replace("_", "-").split("."))) for name in most)]
    (word,) = token_strings(torch.tensor([token]), subject.tokenizer)
    show_table(rows, header, f"What the loudest parts add to the logit of {word!r}")
    return found


def lens(text: str, *subjects: Subject | None) -> None:
    """The word that a model would say at each depth, after each token of `text`; a figure for each model."""
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        depths = [x[0].softmax(dim=-1).max(dim=-1) for x in probe.logit_lens(model, ids)]
        p, best = (torch.stack(side).cpu() for side in zip(*depths, strict=True))  # (depths, seq)
        surest = int(p[-1].argmax())
        same = (best[:, surest] == best[-1, surest]).flip(0).int().cumprod(0).sum()
        settled = len(best) - int(same)
        words = subject.words(text)
        (word,) = token_strings(best[-1:, surest], subject.tokenizer)
        where = f"block {settled - 1}" if settled else "the embedding"
        title = (
            f"{subject.name} is surest after {words[surest]!r}: it settles on {word!r} after {where}, at "
            f"{chance(p[settled, surest])}, and ends at {chance(p[-1, surest])}"
        )
        n = len(best)
        shown = sorted({round(i * (n - 1) / 8) for i in range(9)}) if n > 9 else list(range(n))
        said = [token_strings(best[i], subject.tokenizer) for i in shown]
        names = ["embedding", *(f"block {i}" for i in range(n - 1))]
        alt = "A grid of words: rows are depths, columns tokens; darker cells are more probable."
        show_figure(figures.draw_lens(said, p[shown], words, [names[i] for i in shown], title), alt)


def lens_losses(subject: Subject, text: str) -> list[float]:
    """The loss on `text` of what is read off the stream after each block, in nats per token."""
    ids = subject.ids(text)
    return [probe.next_token_losses(z, ids).mean().item() for z in probe.logit_lens(subject.model, ids)[1:]]


def spared(text: str, *subjects: Subject | None) -> None:
    """Rise of the loss without a block, and with a block and the next exchanged.

    Of six blocks of a deep model; of a slow one on the first 20 tokens.
    """
    panels, found = {}, []
    for subject in present(*subjects):
        model, ids = subject.model, subject.ids(text)
        ids, n = ids[:, :20] if is_slow(model) else ids, model.config.n_layers
        blocks = sorted({round(i * (n - 1) / 5) for i in range(6)})
        order = list(range(n))
        whole = probe.next_token_losses(probe.run_layers(model, ids, order), ids).mean()
        orders = [[i for i in order if i != block] for block in blocks]
        orders += [[*order[:i], i + 1, i, *order[i + 2 :]] for i in blocks if i + 1 < n]
        losses = [probe.next_token_losses(probe.run_layers(model, ids, each), ids).mean() for each in orders]
        rises = (torch.stack(losses) - whole).cpu()
        left_out, exchanged = rises[: len(blocks)], rises[len(blocks) :]
        panels[subject.name] = blocks, left_out, exchanged
        worst, middle = int(left_out.argmax()), left_out.median()
        found.append(
            f"{subject.name}'s loss rises by {left_out[worst]:.1f} without block {blocks[worst]}, by {middle:.2f} "
            "without the median one"
        )
    title = "; ".join(found)
    alt = "Bars: rise of the loss without each block, and below it where a block and the next are exchanged."
    show_figure(figures.draw_spared(panels, title), alt)


CHOICES = ("position", "norm", "feed_forward", "kv_heads", "scale", "tying")
INSTEAD = {"scale": {"none": "not scaled"}, "norm": {"none": "no norm"}, "position": {"none": "no positions"}}


def choices() -> dict[str, Difference]:
    """Every part of a small Llama exchanged, one at a time: the lab's kept trainings, paired by their seeds."""
    by_group = {group: ablation.verdict(group) for group in CHOICES}
    named = {
        group.replace("_", "-"): {INSTEAD.get(group, {}).get(name, name): d for name, d in found.items()}
        for group, found in by_group.items()
    }
    every = {name: d for found in named.values() for name, d in found.items()}
    worse = sum(d.interval[0] > 0 for d in every.values())
    better = sum(d.interval[1] < 0 for d in every.values())
    title = (
        f"Of {len(every)} exchanges {worse} end higher than Llama 3 by their interval, {better} lower, "
        f"{len(every) - worse - better} are not told apart"
    )
    alt = (
        "A dot with its interval for every exchanged part: how much higher or lower the loss of its training ends."
    )
    show_figure(figures.draw_choices(named, title), alt)
    return every
