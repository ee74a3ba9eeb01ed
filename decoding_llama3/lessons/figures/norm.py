"""Part 3 - the figures of normalisation: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable


def draw_plane(
    points: Float[Tensor, "points 2"], layer: Float[Tensor, "points 2"], rms: Float[Tensor, "points 2"], title: str
) -> Figure:
    """Points of the plane before, after LayerNorm and after RMSNorm; a point keeps its colour."""
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 3.7))
    colours = torch.atan2(points[:, 1], points[:, 0])
    for ax, values, name in zip(
        axes, (points, layer, rms), ("before", "LayerNorm: two points", "RMSNorm: a circle"), strict=True
    ):
        ax.scatter(values[:, 0], values[:, 1], c=colours, cmap="twilight", s=26)
        ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        limit = 1.1 * values.abs().max().item()
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="feature 0")
        ax.set_title(name, fontsize=12, fontweight="normal")
    axes[0].set_ylabel("feature 1")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_depth(
    before: Float[Tensor, "norms tokens"], after: Float[Tensor, "norms tokens"], names: Sequence[str], title: str
) -> Figure:
    """Root mean square of what each norm reads and of what it hands on, a dot for each token."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    x = torch.arange(len(names))
    for values, colour, name in (
        (before, style.RESIDUAL, "the residual stream, before the norm"),
        (after, style.NORM, "after the norm"),
    ):
        middle = values.median(dim=1).values
        ax.plot(x[:, None].expand_as(values), values, ".", color=colour, alpha=0.35, markersize=5)
        ax.plot(x, middle, color=colour, linewidth=2.5)
        ax.annotate(
            name,
            (x[len(x) // 2], middle[len(x) // 2]),
            xytext=(0, -28),
            textcoords="offset points",
            color="dimgrey" if colour == style.RESIDUAL else colour,
        )
    ax.set_yscale("log")
    shown = style.thinned(len(names), 20)
    ax.set_xticks(shown, [names[i] for i in shown], rotation=40, ha="right")
    ax.set(ylabel="root mean square of a token", title=title)
    return figure


def draw_weights(weights: Mapping[str, Float[Tensor, " dim"]], title: str) -> Figure:
    """The learned weights of every norm, a dot for each feature, with their median."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    generator = torch.Generator().manual_seed(0)
    for i, (name, values) in enumerate(weights.items()):
        values = values[:: -(-len(values) // 512)]  # more dots than that only fill the column
        spread = i + 0.5 * (torch.rand(len(values), generator=generator) - 0.5)
        colour = style.QUERY if "attention" in name else style.FEED_FORWARD if "feed" in name else "black"
        ax.plot(spread, values, ".", color=colour, alpha=0.4, markersize=4)
        ax.plot([i - 0.32, i + 0.32], [values.median()] * 2, color="black", linewidth=2)
    ax.axhline(1, color=style.RESIDUAL, linewidth=1, linestyle="--")
    ax.text(len(weights) - 0.5, 1, " start", va="center", color="dimgrey")
    ax.text(0.01, 0.95, "read by attention", color=style.QUERY, transform=ax.transAxes, va="top")
    ax.text(0.01, 0.88, "read by feed-forward", color=style.FEED_FORWARD, transform=ax.transAxes, va="top")
    names, shown = list(weights), style.thinned(len(weights), 20)
    ax.set_xticks(shown, [names[i] for i in shown], rotation=40, ha="right")
    ax.set(ylabel="learned weight of a feature", title=title, xlim=(-0.7, len(weights) + 0.1))
    return figure


def draw_outputs(values: Float[Tensor, " values"], inside: float, title: str) -> Figure:
    """Histogram of normalised values with the band from 0 to 1, which holds the share `inside`."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    ax.axvspan(0, 1, color=style.NEUTRAL, alpha=0.25, linewidth=0)
    shown = values[values.abs() < 4]
    counts = np.asarray(ax.hist(shown, bins=90, color=style.NORM)[0])
    beyond = 1 - len(shown) / len(values)
    ax.text(
        0.99, 0.5, f"{beyond:.1%} lie outside\nthis picture", ha="right", color="dimgrey", transform=ax.transAxes
    )
    ax.text(0.5, 1.04 * counts.max(), f"{inside:.0%} in 0 to 1", ha="center", va="bottom", fontsize=12)
    ax.set_ylim(0, 1.2 * counts.max())
    ax.set(xlabel="value of a feature after the norm, before its weight", ylabel="how many", title=title)
    return figure


def draw_share(
    shares: Float[Tensor, "depths tokens"], names: Sequence[str], tokens: Sequence[str], title: str
) -> Figure:
    """How much of a token's squared length its largest feature holds, by depth."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    image = ax.imshow(shares, cmap=style.SEQUENTIAL, vmin=0, aspect="auto")
    ax.set_xticks(range(len(tokens)), map(drawable, tokens), rotation=40, ha="right")
    shown = style.thinned(len(names), 20)
    ax.set_yticks(shown, [names[i] for i in shown])
    ax.set(xlabel="token", ylabel="the residual stream", title=title)
    figure.colorbar(image, ax=ax, label="share of the squared length")
    return figure


def draw_gradients(depths: Sequence[int], norms: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Size of a gradient in the first block, by the number of blocks: norms before the parts, and after sums."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for (name, sizes), colour in zip(norms.items(), (style.NORM, style.FEED_FORWARD), strict=True):
        ax.plot(depths, sizes, "o-", color=colour)
        ax.annotate(
            f"norms {name}", (depths[-1], sizes[-1]), xytext=(8, 0), textcoords="offset points", va="center"
        )
    ax.set_xticks(depths)
    ax.set(xlim=(0, 1.25 * max(depths)), xlabel="blocks", ylabel="gradient of w_gate, block 0 (norm)", title=title)
    ax.set_yscale("log")
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    return figure
