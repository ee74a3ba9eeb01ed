"""Part 1 - the figures of the tokenizer: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label

LEARNED, UNTRAINED = style.NEUTRAL, "black"
TINY, LLAMA3 = style.MODEL_COLOURS["tiny"], style.MODEL_COLOURS["Llama 3 8B"]


def draw_merges(steps: Sequence[Sequence[bytes]], ranks: Mapping[bytes, int]) -> Figure:
    """A word from its bytes to its token, a row per merge; `steps` are the pieces after 0, 1, ... merges."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.34 * len(steps) + 0.7))
    length = sum(map(len, steps[0]))
    before: Sequence[bytes] = steps[0]
    for row, pieces in enumerate(steps):
        fresh = next((i for i, piece in enumerate(pieces) if piece != before[i]), None)
        left = 0
        for i, piece in enumerate(pieces):
            colour = LEARNED if i == fresh else "#EEEEEE"
            ax.barh(row, len(piece) - 0.08, left=left, height=0.82, color=colour, align="center")
            ax.text(left + len(piece) / 2 - 0.04, row, token_label(piece), ha="center", va="center", fontsize=12)
            left += len(piece)
        note = "bytes" if fresh is None else f"rank {ranks[pieces[fresh]]:,}"
        ax.text(length + 0.15, row, note, va="center", fontsize=12, color="dimgrey")
        before = pieces
    ax.set_xlim(0, length + 2)
    ax.invert_yaxis()
    ax.set_axis_off()
    ax.set_title(
        f"{len(steps) - 1} merges, the earliest learned first, make {token_label(steps[-1][-1])} one token"
    )
    return figure


def draw_counts(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """How many pieces each text (outer key) becomes in each way of cutting (inner key)."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.36 * len(counts) + 1.5))
    colours = {"bytes": "darkgrey", "tiny": TINY, "Llama 3": LLAMA3}
    sizes = {"bytes": 150, "tiny": 80, "Llama 3": 30}  # nested where they coincide
    unnamed = set(colours)
    for row, values in enumerate(counts.values()):
        low, high = min(values.values()), max(values.values())
        ax.plot([low, high], [row, row], color="#DDDDDD", zorder=1)
        ax.annotate(str(low), (low, row), xytext=(-8, 0), textcoords="offset points", ha="right", va="center")
        for name, value in values.items():
            ax.scatter(value, row, color=colours[name], s=sizes[name], zorder=2)
            if name in unnamed and list(values.values()).count(value) == 1:
                unnamed.remove(name)
                ax.annotate(
                    name, (value, row), xytext=(9, 7), textcoords="offset points", color=colours[name], fontsize=12
                )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlim(left=0.7 * min(min(values.values()) for values in counts.values()))
    ax.set_yticks(range(len(counts)), counts)
    ax.set_ylim(len(counts) - 0.5, -0.8)
    ax.set_xlabel("pieces (logarithmic)")
    ax.set_title(title)
    return figure


def draw_growth(
    llama3: Mapping[str, Sequence[tuple[int, float]]], tiny: Sequence[tuple[int, float]], title: str
) -> Figure:
    """Points (size of the vocabulary, characters per token): three texts by Llama 3's list, a tale by tiny's."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for (name, points), line in zip(llama3.items(), ("-", "--", ":"), strict=True):
        ax.plot(*zip(*points, strict=True), line, color=LLAMA3)
        ax.annotate(
            name, points[-1], xytext=(8, 0), textcoords="offset points", va="center", color=LLAMA3, fontsize=12
        )
    ax.plot(*zip(*tiny, strict=True), color=TINY)
    ax.scatter(*tiny[-1], color=TINY, s=20)
    ax.annotate(
        "tale, tiny's list",
        tiny[-1],
        xytext=(-6, 6),
        textcoords="offset points",
        ha="right",
        color=TINY,
        fontsize=12,
    )
    ax.set_xscale("log", base=2)
    ticks = [256, 1000, 4000, 32_000, 128_000]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xlim(right=600_000)
    ax.set_yticks(range(5))
    ax.set_xlabel("pieces in the vocabulary (logarithmic)")
    ax.set_ylabel("characters per token")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_similarity(
    cosines: Float[Tensor, "words words"], kinds: Mapping[str, Sequence[str]], title: str
) -> Figure:
    """Cosine of every two embeddings, each pair once; the words stand in the order of their kinds, each framed."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 5.2))
    shown = cosines.masked_fill(torch.ones_like(cosines).triu() > 0, torch.nan)
    limit = shown.nan_to_num().abs().max().item()
    image = ax.imshow(shown, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    start, middles = -0.5, []
    for words in kinds.values():
        end = start + len(words)
        ax.add_patch(Polygon([(start, start), (start, end), (end, end)], fill=False, linewidth=1.2))
        middles.append((start + end) / 2)
        start = end
    ax.set_xticks(middles, kinds)
    ax.set_yticks(range(len(cosines)), [word.strip() for words in kinds.values() for word in words])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(image, ax=ax, shrink=0.7, label="cosine of the two", ticks=[-0.4, 0, 0.4])
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_norms(
    norms: Float[Tensor, " vocab"],
    untrained: Bool[Tensor, " vocab"],
    named: Mapping[int, str],
    bounds: tuple[int, int],
    title: str,
) -> Figure:
    """Length of each token's embedding by its id; bytes end at bounds[0], merges at bounds[1]."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ids = torch.arange(len(norms))
    for chosen, colour in ((~untrained, LEARNED), (untrained, UNTRAINED)):
        ax.plot(ids[chosen], norms[chosen], "s", color=colour, markersize=1.8, markeredgewidth=0)
    top = 1.12 * norms.max().item()
    for name, place, align in (("bytes", 0, "left"), ("merges, in the order learned", sum(bounds) / 2, "center")):
        ax.text(place, top, name, ha=align, va="bottom", fontsize=12)
    ax.text(len(norms), top, "special", ha="right", va="bottom", fontsize=12)
    for border in bounds:
        ax.axvline(border, color="lightgrey", linewidth=1, zorder=0)
    for token, name in named.items():
        colour = UNTRAINED if untrained[token] else LEARNED
        ax.scatter(token, norms[token], s=30, color=colour, edgecolors="black", linewidths=0.8)
        ax.annotate(
            name, (token, norms[token]), xytext=(7, 0), textcoords="offset points", va="center", fontsize=11
        )
    ax.set_ylim(0, 1.1 * top)
    ax.set_xlim(-20, len(norms) + 20)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("token id")
    ax.set_ylabel("length of the embedding")
    ax.set_title(title)
    return figure


def draw_next(probabilities: Float[Tensor, " top"], tokens: Sequence[str], title: str) -> Figure:
    """The most probable next tokens, and what is left for all others."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.32 * len(tokens) + 1.4))
    rest = 1 - probabilities.sum()
    values = [*(100 * probabilities).tolist(), 100 * rest.item()]
    colours = [style.PREDICTION] * len(tokens) + ["lightgrey"]
    ax.barh(range(len(values)), values, color=colours, height=0.75)
    for row, value in enumerate(values):
        ax.text(value + 0.4, row, f"{value:.0f} %", va="center")
    ax.set_yticks(range(len(values)), [*(token_label(token) for token in tokens), "all others"])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(values))
    ax.set_xlabel("probability (%)")
    ax.set_title(title)
    return figure


def draw_benchmarks(tables: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> Figure:
    """Per cent solved: a panel per table, a row per benchmark, a dot per model."""
    figure, axes = plt.subplots(1, len(tables), figsize=(style.WIDTH, 4.0), sharex=True)
    models = next(iter(next(iter(tables.values())).values()))
    markers = dict(zip(models, "Dosv"[: len(models)], strict=True))
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        for y, row in enumerate(table.values()):
            ax.plot([min(row.values()), max(row.values())], [y, y], color="#DDDDDD", zorder=0)
            for model, value in row.items():
                ax.plot(value, y, markers[model], color=style.MODEL_COLOURS[model], markersize=8)
        ax.set_yticks(range(len(table)), list(table))
        ax.invert_yaxis()
        ax.set(xlim=(0, 100), xlabel="per cent", ylim=(len(table) - 0.4, -0.6))
        ax.set_title(name, fontsize=12, fontweight="normal")
    for i, model in enumerate(models):  # in the left panel, where the rows leave room
        axes[0].plot(62, 3.55 + 0.35 * i, markers[model], color=style.MODEL_COLOURS[model], markersize=8)
        axes[0].text(65, 3.55 + 0.35 * i, model, color=style.MODEL_COLOURS[model], va="center", fontsize=11)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


_STEP_COLOURS = style.MODEL_COLOURS | {
    "shared keys": style.KEY,
    "wider feed-forward": style.FEED_FORWARD,
    "vocabulary": style.RESIDUAL,
}


def draw_waterfall(steps: Sequence[tuple[str, int]], title: str) -> Figure:
    """Parameters of the first model, then what each change adds or takes, in units; the end is the sum."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.2))
    total = 0
    for x, (name, count) in enumerate(steps):
        ax.bar(x, count / 1e9, bottom=total / 1e9, color=_STEP_COLOURS.get(name, style.NEUTRAL), width=0.62)
        total += count
        text = f"{count / 1e9:.3f}" if x == 0 else f"{count / 1e6:+,.0f} million"
        ax.annotate(
            text, (x, max(total, total - count) / 1e9), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    ax.bar(len(steps), total / 1e9, color=LLAMA3, width=0.62)
    ax.annotate(
        f"{total / 1e9:.3f}", (len(steps), total / 1e9), xytext=(0, 5), textcoords="offset points", ha="center"
    )
    ax.set_xticks(range(len(steps) + 1), [*(name for name, _ in steps), "Llama 3 8B"])
    ax.set(ylabel="parameters (10⁹), from 5 on", ylim=(5, 8.6), title=title)
    return figure


def draw_law(
    tokens: Sequence[float],
    losses: Sequence[float],
    floor: float,
    marks: Mapping[str, tuple[float, float]],
    title: str,
) -> Figure:
    """A scaling law's loss of one model against the tokens it has read, its floor, and points with their names."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    ax.semilogx(tokens, losses, color=LLAMA3)
    ax.axhline(floor, color=style.RESIDUAL, linestyle="--")
    ax.annotate(
        "with endless text", (tokens[0], floor), xytext=(0, 5), textcoords="offset points", color="dimgrey"
    )
    for name, (x, y) in marks.items():
        ax.plot(x, y, "o", color="black")
        ax.annotate(name, (x, y), xytext=(4, 7), textcoords="offset points")
    ax.set(xlabel="tokens read (logarithmic)", ylabel="loss (nats per token)", title=title)
    return figure


def draw_pieces(counts: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Characters per token of several texts with two vocabularies, a pair of dots per text."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.42 * len(counts) + 1.2))
    vocabularies = list(next(iter(counts.values())))
    looks = dict(zip(vocabularies, ((style.MODEL_COLOURS["Mistral 7B"], "o"), (LLAMA3, "D")), strict=True))
    for y, row in enumerate(counts.values()):
        ax.plot(list(row.values()), [y] * len(row), color="#DDDDDD", zorder=0)
        for name, value in row.items():
            colour, marker = looks[name]
            size = 11 if marker == "o" else 6  # a small diamond on a large dot, where both are the same
            ax.plot(value, y, marker, color=colour, markersize=size, label=name if y == 0 else None)
    ax.set_yticks(range(len(counts)), list(counts))
    ax.invert_yaxis()
    ax.set(xlim=(0, None), xlabel="characters per token", title=title)
    ax.legend(loc="lower right")
    return figure


def draw_cuts(cuts: Mapping[int, Sequence[bytes]], title: str) -> Figure:
    """One text, a row for each size of the vocabulary, as boxes of pieces; single bytes are grey."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.62 * len(cuts) + 0.7))
    left = 0
    for y, (size, pieces) in enumerate(cuts.items()):
        left = 0
        for i, piece in enumerate(pieces):
            colour = "#EEEEEE" if len(piece) == 1 else (LEARNED, "#A8D8F0")[i % 2]
            ax.barh(y, len(piece) - 0.08, left=left, height=0.8, color=colour)
            ax.text(left + len(piece) / 2 - 0.04, y, token_label(piece), ha="center", va="center", fontsize=10)
            left += len(piece)
        ax.text(-0.6, y, f"{size:,}", ha="right", va="center")
        ax.text(left + 0.5, y, f"{len(pieces)}", va="center")
    ax.set_xlim(-5, left + 4)
    ax.invert_yaxis()
    ax.set_axis_off()
    ax.set_title(title)
    return figure
