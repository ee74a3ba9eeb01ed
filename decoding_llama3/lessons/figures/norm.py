"""Part 3 - the figures of normalisation: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style


def draw_sum(writes: Mapping[str, Sequence[float]], title: str) -> Figure:
    """A stream of a few features: what each part adds, and the sum so far; each bar says its value."""
    added = torch.tensor(list(writes.values()), dtype=torch.float32)
    sums = added.cumsum(0)
    figure, axes = plt.subplots(2, len(writes), figsize=(style.WIDTH, 4.0), sharey=True)
    limit = 1.35 * max(added.abs().max().item(), sums.abs().max().item())
    for column, name in enumerate(writes):
        for ax, values, colour in zip(
            axes[:, column], (added[column], sums[column]), (style.NORM, style.RESIDUAL), strict=True
        ):
            shown = ax.bar(range(len(values)), values.tolist(), color=colour, width=0.6)
            ax.bar_label(shown, [f"{value:g}" for value in values.tolist()], padding=2)
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set(ylim=(-limit, limit), xticks=range(len(values)), yticks=[])
        axes[0, column].set_title(name, fontsize=12, fontweight="normal")
    axes[0, 0].set_ylabel("written")
    axes[1, 0].set_ylabel("stream after it")
    figure.supxlabel("feature", fontsize=12)
    style.headline(figure, title)
    return figure


def draw_precision(
    sizes: Float[Tensor, " sizes"], after: Mapping[str, Float[Tensor, " sizes"]], title: str
) -> Figure:
    """The RMS after a norm by the size of the numbers before it, with squares in float16 and in float32."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.0))
    for (name, values), colour in zip(after.items(), (style.WRONG, style.NORM), strict=True):
        ax.plot(sizes, values, "o-", color=colour, markersize=4)
        low = values[-1].item() < 0.5
        x, y = (sizes[-1].item(), 0.06) if low else (sizes[0].item(), values[0].item() - 0.12)
        ax.text(x, y, name, color=colour, ha="right" if low else "left")
    ax.set_xscale("log")
    ax.set(ylim=(-0.08, 1.15), xlabel="RMS of the numbers before the norm", ylabel="RMS after it")
    style.headline(figure, title)
    return figure


def draw_squares(x: Float[Tensor, " features"], title: str) -> Figure:
    """A few numbers, their squares with their mean, the numbers divided by its root; each bar has its value."""
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 3.0))
    mean = x.square().mean()
    names = ("the numbers, x", "their squares", "divided by the root of the mean")
    for ax, values, name in zip(axes, (x, x.square(), x / mean.sqrt()), names, strict=True):
        shown = ax.bar(range(len(x)), values.tolist(), color=style.NORM, width=0.6)
        ax.bar_label(shown, [f"{value:g}" for value in values.numpy().round(2).tolist()], padding=2)
        ax.axhline(0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(x)), [f"$x_{i}$" for i in range(len(x))])
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.margins(y=0.18)
    axes[1].axhline(mean, color=style.MARKED, linestyle="--", linewidth=1.5)
    axes[1].text(len(x) - 0.55, mean, f"mean {mean:g}", color=style.MARKED, va="bottom", ha="right")
    style.headline(figure, title)
    return figure


def draw_scaled(vectors: Sequence[Float[Tensor, " features"]], title: str) -> Figure:
    """Vectors of a few numbers, above as they are and below divided by their RMS; each bar has its value."""
    figure, axes = plt.subplots(2, len(vectors), figsize=(style.WIDTH, 3.8), sharey="row", squeeze=False)
    for column, x in enumerate(vectors):
        size = x.square().mean().sqrt()
        for ax, values, name in zip(
            axes[:, column], (x + 0.0, x / size + 0.0), (f"RMS {size:g}", f"divided by {size:g}"), strict=True
        ):
            shown = ax.bar(range(len(values)), values.tolist(), color=style.NORM, width=0.6)
            ax.bar_label(shown, [f"{value:g}" for value in values.numpy().round(2).tolist()], padding=2)
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set(xticks=[], yticks=[])
            ax.set_title(name, fontsize=12, fontweight="normal")
            ax.margins(y=0.2)
    style.headline(figure, title)
    return figure


def draw_floor(
    sizes: Float[Tensor, " sizes"], after: Mapping[float, Float[Tensor, " sizes"]], title: str
) -> Figure:
    """The RMS after a norm by the RMS before it, a curve for each eps."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.2))
    shades = plt.get_cmap("Blues")(np.linspace(0.4, 0.95, len(after)))
    for (eps, values), colour in zip(after.items(), shades, strict=True):
        ax.plot(sizes, values, color=colour)
        at = int((values - 0.3).abs().argmin()) if eps else 3
        left = eps not in (0, max(after))  # of the curves that fall the last has its name on the right
        x, y = sizes[at].item() * (0.8 if left else 1.4), values[at].item() + (0.03 if eps == 0 else -0.04)
        ax.text(x, y, f"eps {eps:g}", color=colour, ha="right" if left else "left")
    ax.set_xscale("log")
    ax.set(ylim=(0, 1.15), xlabel="RMS before the norm", ylabel="RMS after it")
    style.headline(figure, title)
    return figure


def draw_overflow(
    panels: Mapping[str, Mapping[str, tuple[str, Sequence[Sequence[float]]]]], limit: float, title: str
) -> Figure:
    """The size of the stream after each block: a panel for each size of the weights, a line for each stack.

    A stack that passes `limit` ends there in a cross. The lines of a kind have one colour and one name.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.2), sharey=True)
    for ax, (weights, kinds) in zip(axes, panels.items(), strict=True):
        for label, (colour, rows) in kinds.items():
            for i, row in enumerate(rows):
                last = int(np.flatnonzero(np.isfinite(row))[-1])
                name = None if i else label
                ax.plot(range(last + 1), row[: last + 1], color=colour, linewidth=1.8, label=name)
                if last + 1 < len(row):
                    ax.plot([last, last + 1], [row[last], limit], color=colour, linewidth=1, linestyle=":")
                    ax.plot(last + 1, limit, "x", color=colour, markersize=9)
        ax.set_xlabel("blocks")
        ax.set_title(weights, fontsize=12, fontweight="normal")
        ax.axhline(limit, color="black", linewidth=1, linestyle="--")
    axes[0].set_yscale("log")
    for ax, place in zip(axes, ("center right", "center left"), strict=True):
        ax.legend(loc=place)
    axes[0].text(axes[0].get_xlim()[1], limit / 10, "the largest float32", ha="right", va="top")
    axes[0].set(ylim=(0.1, 1e41), ylabel="size of the stream (RMS)")
    axes[0].set_yticks([1, 1e10, 1e20, 1e30], ["1", "$10^{10}$", "$10^{20}$", "$10^{30}$"])
    axes[0].minorticks_off()
    style.headline(figure, title)
    return figure


def draw_bars(
    stages: Sequence[Float[Tensor, " dim"]], weight: Float[Tensor, " dim"], loudest: int, title: str
) -> Figure:
    """A vector as it arrives, divided and weighted, and the weight, a bar for each feature; the loudest is marked.

    What is divided and what is weighted have one scale.
    """
    x, divided, y = stages
    figure, axes = plt.subplots(4, 1, figsize=(style.WIDTH, 6.6), sharex=True, height_ratios=(1.5, 1.5, 0.9, 1.5))
    names = ("as it arrives, x", "divided by its RMS", "the weight, w", "weighted: what the part reads, y")
    for ax, values, name in zip(axes, (x, divided, weight, y), names, strict=True):
        colours = [style.MARKED if i == loudest else style.NORM for i in range(len(values))]
        ax.bar(range(len(values)), values.tolist(), width=1.0, color=colours)
        if values is not weight:
            size = values.square().mean().sqrt().item()
            ax.axhspan(-size, size, color=style.NEUTRAL, alpha=0.25, linewidth=0, zorder=0)
            name = f"{name}   (RMS {size:.2f})"
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set_xlim(-1, len(values))
    both = torch.cat([divided, y, torch.zeros(1)])
    for ax in axes[[1, 3]]:
        ax.set_ylim(1.1 * both.min().item(), 1.1 * both.max().item())
    right = loudest > len(x) / 2
    beside = {"textcoords": "offset points", "xytext": (-8 if right else 8, 0), "color": style.MARKED}
    place = {"ha": "right" if right else "left", "va": "center"}
    axes[0].annotate(f"feature {loudest:,}", (loudest, 0.8 * x[loudest].item()), **beside, **place)
    note = f"times {weight[loudest]:.2f}, the median feature times {weight.median():.2f}"
    axes[2].set_title(note, loc="right", color=style.MARKED, fontsize=12, fontweight="normal")
    axes[-1].set_xlabel("feature")
    style.headline(figure, title)
    return figure


def draw_circle(
    points: Float[Tensor, "points 2"],
    divided: Float[Tensor, "points 2"],
    weighted: Float[Tensor, "points 2"] | None,
    title: str,
) -> Figure:
    """Points of the plane and where the division by their RMS takes them, or where the weights take them then."""
    angles = torch.linspace(0, 2 * torch.pi, 181)
    ring = 2**0.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    start, end = (points, divided) if weighted is None else (divided, weighted)
    figure, ax = plt.subplots(figsize=(5.6, 4.6))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(points)))
    stretch = end.abs().sum(dim=0) / divided.abs().sum(dim=0)  # of each feature; a single one may be 0
    ax.plot(*(ring * stretch).T, color=style.RESIDUAL, linewidth=1)
    if weighted is not None:
        ax.plot(*ring.T, color=style.RESIDUAL, linewidth=1, linestyle=":")
    for a, b, colour in zip(start.tolist(), end.tolist(), colours, strict=True):
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
        ax.plot(*a, "o", color=colour, markersize=5, alpha=0.45)
        ax.plot(*b, "o", color=colour, markersize=7)
    ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    limit = 1.12 * max(start.abs().max().item(), end.abs().max().item())
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="feature 0", ylabel="feature 1")
    style.headline(figure, title)
    return figure


def draw_plane(
    points: Float[Tensor, "points 2"],
    kept: Mapping[str, Float[Tensor, "points 2"]],
    colours: Float[Tensor, " points"],
    moved: float,
    title: str,
) -> Figure:
    """Points of the plane, and what each norm leaves of them; a point keeps its colour, and an arrow says how far
    the cloud was moved."""
    figure, axes = plt.subplots(1, 1 + len(kept), figsize=(style.WIDTH, 3.6))
    for ax, (name, values) in zip(axes, {"before": points, **kept}.items(), strict=True):
        ax.scatter(values[:, 0], values[:, 1], c=colours, cmap="twilight", s=26)
        ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        limit = 1.1 * values.abs().max().item()
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="feature 0")
        ax.set_title(name, fontsize=12, fontweight="normal")
    if moved:
        axes[0].annotate(
            "", (moved, moved), (0, 0), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 2}
        )
    axes[0].set_ylabel("feature 1")
    style.headline(figure, title)
    return figure
