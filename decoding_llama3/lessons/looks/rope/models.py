"""Part 4 - what is shown of the rotation in trained models."""

from itertools import pairwise

import torch

from decoding_llama3.inspect import probe
from decoding_llama3.lessons.figures import rope_models as figures
from decoding_llama3.lessons.looks.rope.turning import asking, looks_one_back, losses_under
from decoding_llama3.lessons.show import TALE, held_out_ids, is_slow, show_figure, show_table
from decoding_llama3.lessons.subject import Subject, present
from decoding_llama3.rope import apply_rope, rope_rotation

BANDS = (20.0, 200.0, 2000.0)  # tokens per turn, where one band of pairs ends and the next begins


def looks_back(text: str, *subjects: Subject | None) -> None:
    """Who looks at whom in `text`, by the query that looks one token back most: turned, and not turned."""
    panels, found = {}, []
    for subject in present(*subjects):
        chosen = looks_one_back(subject, TALE)
        here = asking(subject, text, chosen.block, chosen.number)
        trained, still = here.shares(), here.shares(turned=False)
        panels[f"{subject.name}, {here.name}"] = subject.words(text), trained, still
        shares = [x.diagonal(-1)[2:].mean() for x in (trained, still)]
        found.append(f"{subject.name}'s gives the token before {shares[0]:.0%} turned, {shares[1]:.0%} not turned")
    title = "; ".join(found)
    alt = "Arcs from each token to those it looks at, above with the rotation, below without it."
    show_figure(figures.draw_looks_back(panels, title), alt)


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
    title = f"Cosines of all pairs add up to a peak: {', '.join(found)}"
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
        "share of the token before",
        "as trained",
        "means alone",
        "without means",
        f"means, {draws} chance phases",
    ]
    show_table(rows, header)


def _pairs_turned_by_chance(q: torch.Tensor, seed: int) -> torch.Tensor:
    """Each pair of features turned by an angle of its own, drawn by chance, the same for all tokens."""
    angles = 2 * torch.pi * torch.rand(q.shape[-1] // 2, generator=torch.Generator().manual_seed(seed))
    return apply_rope(q[None, None], torch.stack((angles.cos(), angles.sin()), dim=-1).expand(len(q), -1, -1))[
        0, 0
    ]


def bands(text: str, *subjects: Subject | None) -> None:
    """What it costs to stop the pairs of each band of wavelengths: on `text`, and on a longer text."""
    edges = (0.0, *BANDS, float("inf"))
    names = [
        f"over {low:,.0f}" if high == edges[-1] else f"{max(low, 6):,.0f} to {high:,.0f}"
        for low, high in pairwise(edges)
    ]
    here = present(*subjects)
    panels = {
        f"the tale, {here[0].ids(text).shape[1]} tokens": {s.name: _cost(s, s.ids(text), edges) for s in here}
    }
    quick = [subject for subject in here if not is_slow(subject.model)]
    if quick:
        length = min(512, *(subject.model.config.max_seq_len for subject in quick))
        panels[f"a longer text, {length} tokens"] = {
            s.name: _cost(s, held_out_ids(s.model, s.tokenizer, 2, length), edges) for s in quick
        }
    rises = next(iter(panels.values()))
    fast, slow = (", ".join(f"{rise[band]:.2f} ({name})" for name, rise in rises.items()) for band in (0, -1))
    title = f"In the tale the pairs that turn within {BANDS[0]:.0f} tokens are worth {fast}, the slowest {slow}"
    alt = (
        "Bars for four bands of pairs, fast to slow: how much the loss rises when the pairs of a band stand still."
    )
    show_figure(figures.draw_bands(names, panels, title), alt)


def _cost(subject: Subject, ids: torch.Tensor, edges: tuple[float, ...]) -> list[float]:
    """The rise of the loss with the pairs of each band stopped; 0 where a model has no such pair."""
    own = probe.pair_frequencies(subject.model)
    turns = 2 * torch.pi / own
    before = losses_under(subject.model, ids, own).mean()
    rises = []
    for low, high in pairwise(edges):
        inside = (turns >= low) & (turns < high)
        after = losses_under(subject.model, ids, own * ~inside).mean() if inside.any() else before
        rises.append(round((after - before).item(), 2) + 0.0)  # no minus before a zero
    return rises


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
        found.append(f"{subject.name} {small:.2f} and {large:.2f}")
    title = (
        f"Nats per token that a theta {1 / factors[0]:.0f} times too small and one {factors[-1]:.0f} times "
        f"too large cost: {', '.join(found)}"
    )
    alt = "Lines over theta: how much the loss of the same weights rises as theta leaves the trained one."
    show_figure(figures.draw_theta_sweep(rises, title), alt)
