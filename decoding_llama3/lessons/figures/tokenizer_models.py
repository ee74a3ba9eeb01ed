"""Part 1 - the figures of what lists and models have learned of tokens: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label

LLAMA3 = style.MODEL_COLOURS["Llama 3 8B"]
MET, NEVER = style.NEUTRAL, "black"
Vocabulary = Float[Tensor, " vocab"]


def draw_counts(counts: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """How many pieces each text (outer key) becomes in each way of cutting (inner key)."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.38 * len(counts) + 1.7))
    ways = list(next(iter(counts.values())))
    known = style.MODEL_COLOURS | {"bytes": "darkgrey", "Llama 3": LLAMA3}
    colours = {way: known.get(way, style.MODEL_COLOURS["SmolLM2"]) for way in ways}
    for row, values in enumerate(counts.values()):
        ax.plot([min(values.values()), max(values.values())], [row, row], color="#DDDDDD", zorder=1)
        for i, (way, value) in enumerate(values.items()):  # nested where they coincide
            ax.scatter(
                value, row, color=colours[way], s=170 / 2.2**i, zorder=2 + i, label=way if not row else None
            )
    last = {row: values[ways[-1]] for row, values in enumerate(counts.values())}
    for row, value in last.items():
        low = min(list(counts.values())[row].values())
        ax.annotate(str(value), (low, row), xytext=(-9, 0), textcoords="offset points", ha="right", va="center")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlim(left=0.75 * min(min(values.values()) for values in counts.values()))
    ax.set_yticks(range(len(counts)), list(counts))
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlabel("pieces (logarithmic)")
    figure.legend(loc="outside lower center", ncols=len(ways))
    style.headline(figure, title)
    return figure


def draw_pieces(counts: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Characters per token of several texts with two vocabularies, a pair of dots per text."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.38 * len(counts) + 1.4))
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
    ax.set(xlim=(0, None), xlabel="characters per token")
    figure.legend(loc="outside lower center", ncols=2)
    style.headline(figure, title)
    return figure


def draw_taken_away(more: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """How many more tokens each text needs (a share), a panel for each thing that is taken away."""
    figure, axes = plt.subplots(1, len(more), figsize=(style.WIDTH, 2.9), sharex=True, sharey=True)
    highest = max(max(texts.values()) for texts in more.values())
    for ax, (what, texts) in zip(axes, more.items(), strict=True):
        bars = ax.barh(range(len(texts)), list(texts.values()), color=LLAMA3, height=0.6)
        ax.bar_label(bars, [f"{share:+.0%}" for share in texts.values()], padding=4)
        ax.set(xlim=(0, 1.75 * highest), xticks=[])
        ax.set_title(what, fontsize=12, fontweight="normal")
        ax.tick_params(axis="y", length=0)
    names = list(next(iter(more.values())))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.supxlabel("more tokens than with Llama 3's own tokenizer", fontsize=12)
    style.headline(figure, title)
    return figure


def draw_never_met(
    panels: Mapping[str, tuple[Float[Tensor, "vocab 2"], Float[Tensor, "vocab 2"]]],
    never: Bool[Tensor, " vocab"],
    title: str,
) -> Figure:
    """Rows of two numbers in the plane after training; of those never met also where they began, and the way."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.7), squeeze=False)
    limit = 1.12 * max(max(start[never].abs().max(), end.abs().max()).item() for start, end in panels.values())
    ticks = (-5, 0, 5)
    for ax, (name, (start, end)) in zip(axes[0], panels.items(), strict=True):
        ax.plot(*end[~never].T.numpy(), "o", color=MET, markersize=5, label="met")
        for a, b in zip(start[never].tolist(), end[never].tolist(), strict=True):
            ax.plot(*zip(a, b, strict=True), color="darkgrey", linewidth=0.8, zorder=0)
        ax.plot(
            *start[never].T.numpy(),
            "o",
            markerfacecolor="white",
            color=NEVER,
            markersize=7,
            label="never met, at first",
        )
        ax.plot(*end[never].T.numpy(), "o", color=NEVER, markersize=3.5, label="never met, after training")
        ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=ticks, yticks=ticks)
        ax.set_title(name, fontsize=12, fontweight="normal")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    style.headline(figure, title)
    return figure


def draw_untrained(
    panels: Mapping[str, tuple[Float[Tensor, " vocab"], Float[Tensor, " vocab"], float, Bool[Tensor, " vocab"]]],
    title: str,
) -> Figure:
    """Rows of the output table: how near each is to those never met, and its length; a panel for each model.

    Each panel has the likeness, the length, the likeness from which a row is drawn black, and the tokens that are
    the reference.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.1), squeeze=False)
    for ax, (name, (likeness, lengths, border, reference)) in zip(axes[0], panels.items(), strict=True):
        found = likeness > border
        ring = {"color": "none", "markeredgecolor": style.MARKED, "markersize": 9}
        for chosen, marker, look in (
            (~found, ".", {"color": MET, "markersize": 2, "markeredgewidth": 0, "label": "other tokens"}),
            (found, ".", {"color": NEVER, "markersize": 4, "label": "look never met"}),
            (reference, "o", ring | {"label": "special, and together"}),
        ):
            ax.plot(likeness[chosen].numpy(), lengths[chosen].numpy(), marker, linestyle="none", **look)
        ax.axvline(border, color=style.RESIDUAL, linestyle="--", linewidth=1)
        ax.set(xlim=(None, 1.04), ylim=(0, 1.1 * lengths.max().item()), xlabel="cosine with rows never met")
        ax.set_title(f"{name}, {len(found):,} tokens", fontsize=12, fontweight="normal")
    axes[0, 0].set_ylabel("length of the row")
    legend = figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for line in legend.get_lines():
        line.set_markersize(9)
    style.headline(figure, title)
    return figure


def draw_similarity(
    panels: Mapping[str, tuple[Float[Tensor, "words words"], Mapping[str, Sequence[str]]]], title: str
) -> Figure:
    """Cosine of every two rows, each pair once; words in the order of their kinds, each kind framed."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.3), squeeze=False)
    shown = {name: c.masked_fill(torch.ones_like(c).triu() > 0, torch.nan) for name, (c, _) in panels.items()}
    limit = max(values.nan_to_num().abs().max().item() for values in shown.values())
    for ax, (name, (cosines, kinds)) in zip(axes[0], panels.items(), strict=True):
        ax.imshow(shown[name].numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit)
        start, middles = -0.5, []
        for words in kinds.values():
            end = start + len(words)
            ax.add_patch(Polygon([(start, start), (start, end), (end, end)], fill=False, linewidth=1.2))
            middles.append((start + end) / 2)
            start = end
        ax.set_yticks(middles, list(kinds))
        ax.set_xticks(middles, list(kinds), rotation=45, ha="right", rotation_mode="anchor")
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_title(f"{name}, {len(cosines)} words", fontsize=12, fontweight="normal")
    figure.colorbar(axes[0, 0].images[0], ax=axes, shrink=0.6, label="cosine of two rows", location="bottom")
    style.headline(figure, title)
    return figure


def shown_name(token: bytes) -> str:
    """A token's text for a label, cut where it is long."""
    label = token_label(token)
    return label if len(label) <= 20 else f"{label[:18]}..."
