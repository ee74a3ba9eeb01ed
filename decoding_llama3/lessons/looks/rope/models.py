"""Part 4 - what is shown of the rotation in trained models."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from decoding_llama3.attention import attend
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import rope_models as figures
from decoding_llama3.lessons.looks.rope.turning import asking, looks_one_back, losses_under
from decoding_llama3.lessons.show import TALE, held_out_ids, is_slow, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.rope import apply_rope, rope_rotation

BANDS = (20.0, 200.0, 2000.0)  # tokens per turn, where one band of pairs ends and the next begins

SLOWEST = ("stand still", "get the mean query", "are taken out")  # what is done to the slowest pairs


def looks_back(text: str, *subjects: Subject | None) -> None:
    """Who looks at whom in `text`, by the query that looks one token back most: turned, and not turned."""
    panels, found, rows = {}, [], []
    for subject in present(*subjects):
        chosen = looks_one_back(subject, TALE)
        here = asking(subject, text, chosen.block, chosen.number)
        trained, still = here.shares(), here.shares(turned=False)
        panels[f"{subject.name}, {here.name}"] = subject.words(text), trained, still
        shares = [x.diagonal(-1)[2:].mean() for x in (trained, still)]
        found.append(f"{shares[0]:.0%}, not turned {shares[1]:.0%} ({subject.name})")
        for how, looks in (("turned", trained), ("not turned", still)):
            rows.append([f"{subject.name}, {here.name}, {how}", *_most_looked_at(subject.words(text), looks)])
            rows[-1][2] = rows[-1][2] if how == "turned" else ""
    title = f"Mean attention to the token before: turned {', '.join(found)}"
    alt = "Arcs from each token to those it looks at, above with the rotation, below without it."
    show_figure(figures.draw_looks_back(panels, title), alt)
    show_table(rows, ["", "look most at the token before", "the others, and where they look most"])


def _most_looked_at(words: Sequence[str], shares: torch.Tensor) -> tuple[str, str]:
    """At how many tokens, from the second on, the token before has the largest share; the others by name."""
    best = shares.argmax(dim=-1).tolist()
    others = [
        f"{words[m]!r} at {'itself' if best[m] == m else repr(words[best[m]])}"
        for m in range(1, len(words))
        if best[m] != m - 1
    ]
    return f"{len(words) - 1 - len(others)} of {len(words) - 1} tokens", ", ".join(others) or "none"


def one_back(*subjects: Subject | None, distances: int = 25) -> None:
    """What the mean query and the mean key of that query give by distance, pair by pair."""
    panels, found = {}, []
    for subject in present(*subjects):
        chosen = looks_one_back(subject, TALE)
        q, k = (x[1:].mean(dim=0) for x in (chosen.q, chosen.k))
        rotation = rope_rotation(probe.pair_frequencies(subject.model), torch.arange(distances))
        turned = apply_rope(q.expand(1, 1, distances, -1), rotation)[0, 0]
        cosines = (turned * k).unflatten(-1, (-1, 2)).sum(-1).T / len(q) ** 0.5
        cosines = cosines - cosines.mean(dim=1, keepdim=True)
        panels[f"{subject.name}, {chosen.name}"] = cosines, 4
        found.append(f"{subject.name}'s {int(cosines.sum(dim=0).argmax())} back")
    title = f"The cosines of all pairs add up to a peak: {', '.join(found)}"
    alt = "Above, a cosine for each pair by distance; below, their sum with a dot at its highest point."
    show_figure(figures.draw_one_back(panels, title), alt)


def one_back_controls(*subjects: Subject | None, draws: int = 8) -> None:
    """How much of its attention that query gives the token before, with one thing changed in each column."""
    rows = []
    for subject in present(*subjects):
        chosen = looks_one_back(subject, TALE)
        q, k = (x[1:].mean(dim=0).expand_as(x) for x in (chosen.q, chosen.k))
        by_chance = sorted(chosen.one_back(q=_pairs_turned_by_chance(q, seed), k=k) for seed in range(draws))
        values = (
            chosen.one_back(),
            chosen.one_back(q=q, k=k),
            chosen.one_back(q=chosen.q - q, k=chosen.k - k),
        )
        shares = [f"{value:.0%}" for value in values]
        name = f"{subject.name}, {chosen.name}"
        rows.append([name, *shares, f"{by_chance[0]:.0%} to {by_chance[-1]:.0%}"])
    header = [
        "query",
        "as trained",
        "means alone",
        "means subtracted",
        "means alone, each pair turned by chance",
    ]
    caption = (
        f"Share of the attention that the token before gets, in the tale; the last column is of {draws} draws"
    )
    show_table(rows, header, caption)


def _pairs_turned_by_chance(q: torch.Tensor, seed: int) -> torch.Tensor:
    """Each pair of features turned by an angle of its own, drawn by chance, the same for all tokens."""
    angles = 2 * torch.pi * torch.rand(q.shape[-1] // 2, generator=torch.Generator().manual_seed(seed))
    return apply_rope(q[None, None], torch.stack((angles.cos(), angles.sin()), dim=-1).expand(len(q), -1, -1))[
        0, 0
    ]


def bands(text: str, *subjects: Subject | None) -> None:
    """What it costs to stop the pairs of each band of wavelengths; and a table: the slowest stopped, and left out.

    On `text`, and on a book in pieces of the length of `text` and in longer ones.
    """
    edges = (0.0, *BANDS, float("inf"))
    names = _names_of_bands(edges)
    here = present(*subjects)
    n = here[0].ids(text).shape[1]
    rises, rows, counts = {}, [], []
    for subject in here:
        ids, slowest = subject.ids(text), _bands_of(subject, edges)[-1]
        cost = rises[subject.name] = _cost(subject, ids, edges)
        counts.append([int(band.sum()) for band in _bands_of(subject, edges)])
        costs = cost[-1], _cost_of_one_query(subject, ids, slowest), _cost_without(subject, ids, slowest)
        rows.append([subject.name, counts[-1][-1], *(f"{value:.2f}" for value in costs)])
    panels = {f"the tale, {n} tokens": rises}
    quick = next((subject for subject in here if not is_slow(subject.model)), None)
    if quick:
        longest = min(512, quick.model.config.max_seq_len)
        by_length = {}
        for length in (min(n, longest // 3), longest):
            ids = held_out_ids(quick.model, quick.tokenizer, 2 * longest // length, length)
            by_length[f"in pieces of {length} tokens"] = _cost(quick, ids, edges)
        panels[f"a book, {quick.name}"] = by_length
    fast, slow = (
        ", ".join(f"{cost[band]:.2f} ({s.name})" for s, cost in zip(here, rises.values(), strict=True))
        for band in (0, -1)
    )
    title = f"Stopping the fastest pairs raises the loss of the tale by {fast}, stopping the slowest by {slow}"
    alt = (
        "Bars for four bands of pairs, fast to slow: how much the loss rises when the pairs of a band stand still."
    )
    numbers = [f"{name}\n({' | '.join(map(str, n))} pairs)" for name, *n in zip(names, *counts, strict=True)]
    by_panel = [numbers, names][: len(panels)]
    show_figure(figures.draw_bands(by_panel, panels, title), alt)
    header = [f"pairs over {BANDS[-1]:,.0f} tokens per turn", "how many", *SLOWEST]
    show_table(rows, header, "Rise of the loss in the tale when they ... (nats per token)")


def _names_of_bands(edges: tuple[float, ...]) -> list[str]:
    return [
        f"over {low:,.0f}" if high == edges[-1] else f"{max(low, 6):,.0f} to {high:,.0f}"
        for low, high in pairwise(edges)
    ]


def _bands_of(subject: Subject, edges: tuple[float, ...]) -> list[torch.Tensor]:
    turns = 2 * torch.pi / probe.pair_frequencies(subject.model)
    return [(turns >= low) & (turns < high) for low, high in pairwise(edges)]


def _cost(subject: Subject, ids: torch.Tensor, edges: tuple[float, ...]) -> list[float]:
    """The rise of the loss with the pairs of each band stopped; 0 where a model has no such pair."""
    own = probe.pair_frequencies(subject.model)
    before = losses_under(subject.model, ids, own).mean()
    rises = []
    for band in _bands_of(subject, edges):
        after = losses_under(subject.model, ids, own * ~band).mean() if band.any() else before
        rises.append(round((after - before).item(), 2) + 0.0)  # no minus before a zero
    return rises


def _cost_without(subject: Subject, ids: torch.Tensor, band: torch.Tensor) -> float:
    """The rise of the loss with the pairs of a band taken out of every score."""
    kept = (~band).repeat_interleave(2).to(ids.device)

    def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        return apply_rope(x * kept.to(x.dtype), rotation)

    own = probe.pair_frequencies(subject.model)
    after = losses_under(with_parts(subject.model, rotate=rotate), ids, own).mean()
    return round((after - losses_under(subject.model, ids, own).mean()).item(), 2) + 0.0


def _cost_of_one_query(subject: Subject, ids: torch.Tensor, band: torch.Tensor) -> float:
    """The rise of the loss with the pairs of a band of each query, turned, at their mean over the text."""
    chosen, own = band.repeat_interleave(2).to(ids.device), probe.pair_frequencies(subject.model)

    def attend_by_mean(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return attend(torch.where(chosen, q.mean(dim=2, keepdim=True), q), k, v, mask)

    after = losses_under(with_parts(subject.model, attend=attend_by_mean), ids, own).mean()
    return round((after - losses_under(subject.model, ids, own).mean()).item(), 2) + 0.0


def theta_sweep(
    text: str, *subjects: Subject | None, factors: tuple[float, ...] = (0.01, 0.1, 1, 10, 100)
) -> None:
    """The loss of the same weights under another theta than they were trained with."""
    rises, found = {}, []
    for subject in present(*subjects):
        config, ids = subject.model.config, subject.ids(text)
        losses = {}
        for factor in factors:
            with probe.configured(subject.model, rope_theta=factor * config.rope_theta):
                losses[factor] = (
                    losses_under(subject.model, ids, probe.pair_frequencies(subject.model)).mean().item()
                )
        rises[subject.name] = {factor: loss - losses[1] for factor, loss in losses.items()}
        small, large = (rises[subject.name][factor] for factor in (factors[0], factors[-1]))
        found.append(f"{small:.2f} and {large:.2f} ({subject.name})")
    title = (
        f"A theta {1 / factors[0]:.0f} times too small and one {factors[-1]:.0f} times too large cost "
        f"{', '.join(found)} nats per token"
    )
    alt = "Lines over theta: how much the loss of the same weights rises as theta leaves the trained one."
    show_figure(figures.draw_theta_sweep(rises, title), alt)
