"""Part 6 - the figures of what trained feed-forward networks do: arrays in, a figure out, a panel per model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable, font_families


def draw_as_table(
    panels: Mapping[str, tuple[Sequence[int], Mapping[str, Float[Tensor, "blocks draws"]]]], title: str
) -> Figure:
    """Rise of the loss by block, without its feed-forward and with vectors in the place of what it writes.

    A bar is the mean of its draws, a line on it goes from the lowest to the highest. The first block of each model
    has a panel of its own, the others another axis.
    """
    figure, axes = plt.subplots(
        1, 2 * len(panels), figsize=(style.WIDTH, 4.4), squeeze=False, width_ratios=(5, 8) * len(panels)
    )
    colours = (style.RESIDUAL, style.NEUTRAL, style.WRONG, style.FEED_FORWARD)
    for left, right, (name, (blocks, rises)) in zip(axes[0, ::2], axes[0, 1::2], panels.items(), strict=True):
        for ax, chosen in ((left, slice(0, 1)), (right, slice(1, None))):
            for i, ((kind, values), colour) in enumerate(zip(rises.items(), colours, strict=True)):
                shown = values[chosen]
                x = np.arange(len(shown)) + 0.21 * (i - 1.5)
                ax.bar(x, shown.mean(dim=1).tolist(), 0.2, color=colour, label=kind)
                ax.vlines(x, shown.amin(dim=1), shown.amax(dim=1), color="black", linewidth=1.5)
                if ax is left:
                    for at, draws in zip(x, shown, strict=True):
                        mean, top = draws.mean().item(), max(draws.max().item(), 0.0)
                        said = f"{mean:+.1f}" if abs(mean) > 1 else f"{mean:+.2f}"
                        beside = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 9}
                        ax.annotate(said, (at, top), **beside)
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set_xticks(range(len(blocks[chosen])), map(str, blocks[chosen]))
            ax.set_xlabel("block" if ax is left else "block (another scale)")
        left.margins(y=0.1)
        left.set_title(f"{name}, block {blocks[0]}", fontsize=12, fontweight="normal")
        right.set_title(f"{name}, later blocks", fontsize=12, fontweight="normal")
    axes[0, 0].set_ylabel("loss rises by (nats per token)")
    _legend_below(figure, axes[0, 0])
    style.headline(figure, title)
    return figure


def draw_gate_inputs(panels: Mapping[str, tuple[Float[Tensor, " gates"], float, float]], title: str) -> Figure:
    """How often a gate reads which number; of the negative side the share of gates, and of the squares of h."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.6), squeeze=False)
    for ax, (name, (values, share, carried)) in zip(axes[0], panels.items(), strict=True):
        low, high = values.quantile(0.002).item(), values.quantile(0.998).item()
        edges = torch.cat([torch.linspace(low, 0, 60), torch.linspace(0, high, 60)[1:]]).numpy()
        counts, edges = np.histogram(values.numpy(), edges, density=True)
        middle = (edges[1:] + edges[:-1]) / 2
        for side, colour in ((middle < 0, style.GATE), (middle >= 0, style.RESIDUAL)):
            ax.bar(middle[side], counts[side], np.diff(edges)[side], color=colour)
        text = f"{share:.0%} of the gates,\n{carried:.0%} of the squares of h"
        ax.text(0.02, 0.97, text, color=style.GATE, va="top", transform=ax.transAxes)
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set(xlabel="what the gate reads, g", yticks=[], ylim=(0, 1.35 * counts.max()))
    axes[0, 0].set_ylabel("how often")
    style.headline(figure, title)
    return figure


def draw_few(
    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[Sequence[float]]]]], title: str
) -> Figure:
    """Rise of the loss when only a share of the features is kept; a line for each draw of each way to choose."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.8), squeeze=False)
    colours = (style.RESIDUAL, style.WRONG, style.FEED_FORWARD)
    for ax, (name, (shares, rises)) in zip(axes[0], panels.items(), strict=True):
        x = [100 * share for share in shares]
        for (kind, draws), colour in zip(rises.items(), colours, strict=True):
            for i, draw in enumerate(draws):
                ax.plot(x, draw, "o-", color=colour, label=kind if i == 0 else None)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xlim(0, None)
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set_xlabel("hidden features kept (%)")
    axes[0, 0].set_ylabel("loss rises by (nats per token)")
    _legend_below(figure, axes[0, 0])
    style.headline(figure, title)
    return figure


def draw_text(values: Float[Tensor, " tokens"], tokens: Sequence[str], title: str, width: int = 88) -> Figure:
    """The tokens as running text, each on the colour of its value: blue below zero, red above."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 1.9 + len("".join(tokens)) / width / 3))
    limit = values.abs().max().item() or 1.0
    colour = colormaps[style.DIVERGING]
    norm = TwoSlopeNorm(0, -limit, limit)
    font = {"family": ["monospace", *font_families()], "ha": "center", "va": "center"}
    line, column = 0, 0
    for value, token in zip(values.tolist(), tokens, strict=True):
        text = drawable(token.replace("\n", "⏎"))
        if column + len(text) > width:
            line, column, text = line + 1, 0, text.removeprefix(" ")
        shade = colour(norm(value))
        ink = "white" if abs(value) > 0.6 * limit else "black"
        ax.add_patch(Rectangle((column, -line - 0.5), len(text), 0.9, color=shade, linewidth=0))
        for i, character in enumerate(text):  # one at a time: every character as wide as the next
            ax.text(column + i + 0.5, -line - 0.05, character, color=ink, **font)
        column += len(text)
    ax.set(xlim=(0, width), ylim=(-line - 0.8, 0.7))
    ax.set_axis_off()
    scale = ScalarMappable(norm, colour)
    figure.colorbar(
        scale, ax=ax, location="bottom", shrink=0.3, aspect=25, ticks=[-limit, 0, limit], format="%+.1f"
    )
    style.headline(figure, title)
    return figure


def draw_sinking(
    panels: Mapping[
        str, tuple[str, Float[Tensor, " tokens"], Float[Tensor, " tokens"], Float[Tensor, "draws tokens"]]
    ],
    title: str,
) -> Figure:
    """What silencing a feature does to the words that it pushes, by its h at a token; a dot per token.

    Grey dots: what silencing other features, that write as much there, does to the same words.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.2), squeeze=False)
    for ax, (name, (words, said, change, others)) in zip(axes[0], panels.items(), strict=True):
        for i, draw in enumerate(others):
            label = "others of the block, that write as much there, silenced" if i == 0 else None
            ax.plot(said, draw, ".", color=style.RESIDUAL, alpha=0.5, markersize=4, label=label)
        ax.plot(said, change, "o", color=style.MARKED, markersize=5, label="the feature silenced")
        ax.axhline(0, color="black", linewidth=0.8)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.set_title(f"{name}: {drawable(words)}", fontsize=12, fontweight="normal")
        ax.set_xlabel("its h: + pushes the words, - holds them down")
    axes[0, 0].set_ylabel("log p of the words changes by (nats)")
    _legend_below(figure, axes[0, 0])
    style.headline(figure, title)
    return figure


def draw_pushers_silenced(
    panels: Mapping[str, tuple[Sequence[int], Sequence[float], Mapping[str, Float[Tensor, "draws counts"]]]],
    word: str,
    title: str,
) -> Figure:
    """The probability of a word by how many hidden features are silenced: its pushers, and others by chance.

    Equal steps upwards are equal steps of the log odds, ln p / (1 - p).
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.0), squeeze=False)
    for ax, (name, (counts, pushers, others)) in zip(axes[0], panels.items(), strict=True):
        x = range(len(counts))
        ax.set_yscale("logit")
        for (kind, draws), colour in zip(others.items(), (style.RESIDUAL, style.NEUTRAL), strict=True):
            for i, draw in enumerate(draws):
                inside = draw.clamp(1e-6, 1 - 1e-6)
                ax.plot(x, inside, "o-", color=colour, markersize=4, linewidth=1, label=kind if i == 0 else None)
        inside = np.clip(pushers, 1e-6, 1 - 1e-6)
        ax.plot(x, inside, "o-", color=style.MARKED, label="that push the word most")
        ax.axhline(0.5, color="lightgrey", linewidth=1, zorder=0)
        ax.set_xticks(x, [f"{count:,}" for count in counts])
        low, high = ax.get_ylim()
        steps = [p for p in (1e-5, 1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999) if low < p < high]
        ax.set_yticks(steps or [low, high], [f"{p:.4g}" for p in steps or [low, high]])
        ax.minorticks_off()
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set_xlabel("features silenced (the steps are unequal)")
    axes[0, 0].set_ylabel(f"probability of {drawable(word)}")
    _legend_below(figure, axes[0, 0])
    style.headline(figure, title)
    return figure


def _legend_below(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
