"""Part 3 - the figures of normalisation: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style

FLOAT32 = float(np.finfo(np.float32).max)
STAGES = ("as it arrives, x", "divided by its RMS", "weighted: what the part reads, y")


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
    axes[0, 0].set_ylabel("is added")
    axes[1, 0].set_ylabel("the stream then")
    style.headline(figure, title)
    return figure


def draw_slope(weights: Sequence[float], title: str) -> Figure:
    """A loss that is the square of a weight minus 2, with its slope at some weights."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.4))
    w = np.linspace(-1, 5, 200)
    ax.plot(w, (w - 2) ** 2, color=style.RESIDUAL)
    for at in weights:
        slope, loss = 2 * (at - 2), (at - 2) ** 2
        ends = np.array([at - 0.6, at + 0.6])
        ax.plot(ends, loss + slope * (ends - at), color=style.MARKED)
        ax.plot(at, loss, "o", color=style.MARKED)
        ax.text(at + 0.15, loss + 0.35, f"w = {at:g}: gradient {slope:+g}", va="bottom", ha="center")
    ax.set(xlabel="a weight, w", ylabel="the loss, (w - 2)²", ylim=(-0.8, 11))
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


def draw_overflow(sizes: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """The size of the stream after each block, a line for each stack; a line ends where it overflows."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    colours = (style.NORM, style.WRONG, style.GATE)[: len(sizes)]
    for (name, rows), colour in zip(sizes.items(), colours, strict=True):
        values = np.array(rows)
        for row in values:
            ax.plot(np.arange(len(row)), np.where(np.isfinite(row), row, np.nan), color=colour, linewidth=1.8)
        finite = np.isfinite(values).all(axis=0)
        last = int(np.flatnonzero(finite)[-1])
        ax.annotate(
            name,
            (last, np.median(values[:, last])),
            xytext=(6, 8),
            textcoords="offset points",
            color=colour,
            ha="right" if finite.all() else "left",
        )
    ax.set_yscale("log")
    ax.axhline(FLOAT32, color="black", linewidth=1, linestyle="--")
    ax.text(len(next(iter(sizes.values()))[0]) - 1, 1e36, "the largest float32", ha="right", va="top")
    ax.set(ylim=(0.3, 1e40), xlabel="blocks", ylabel="RMS of the stream")
    style.headline(figure, title)
    return figure


def draw_bars(stages: Sequence[Float[Tensor, " dim"]], loudest: int, title: str) -> Figure:
    """One vector in three stages, a bar for each feature; the loudest feature is marked in all of them."""
    figure, axes = plt.subplots(3, 1, figsize=(style.WIDTH, 5.2), sharex=True)
    for ax, values, name in zip(axes, stages, STAGES, strict=True):
        size = values.square().mean().sqrt().item()
        colours = [style.MARKED if i == loudest else style.NORM for i in range(len(values))]
        ax.bar(range(len(values)), values.tolist(), width=1.0, color=colours)
        ax.axhspan(-size, size, color=style.NEUTRAL, alpha=0.25, linewidth=0, zorder=0)
        ax.set_title(f"{name}   (RMS {size:.2f})", fontsize=12, fontweight="normal")
        ax.set_xlim(-1, len(values))
    axes[0].annotate(
        f"feature {loudest:,}",
        (loudest, stages[0][loudest]),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=style.MARKED,
    )
    axes[-1].set_xlabel("feature")
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


def draw_circle(
    points: Float[Tensor, "points 2"],
    divided: Float[Tensor, "points 2"],
    weighted: Float[Tensor, "points 2"] | None,
    title: str,
) -> Figure:
    """Points of the plane and where the division by their RMS takes them; beside it where the weights do."""
    angles = torch.linspace(0, 2 * torch.pi, 181)
    ring = 2**0.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    panels = [(points, divided, ring, "divided by its RMS")]
    if weighted is not None:
        panels.append((divided, weighted, ring * (weighted / divided)[0], "times the weights"))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4.3), squeeze=False)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(points)))
    for ax, (start, end, ring, name) in zip(axes[0], panels, strict=True):
        ax.plot(*ring.T, color=style.RESIDUAL, linewidth=1)
        for a, b, colour in zip(start.tolist(), end.tolist(), colours, strict=True):
            ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
            ax.plot(*a, "o", color=colour, markersize=5, alpha=0.45)
            ax.plot(*b, "o", color=colour, markersize=7)
        ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
        ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
        limit = 1.12 * max(start.abs().max().item(), end.abs().max().item())
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="feature 0", ylabel="feature 1")
        ax.set_title(name, fontsize=12, fontweight="normal")
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
        left = eps not in (0, max(after))
        x, y = sizes[at].item() * (0.9 if left else 1.15), values[at].item() + 0.03
        ax.text(x, y, f"eps {eps:g}", color=colour, ha="right" if left else "left")
    ax.set_xscale("log")
    ax.set(ylim=(0, 1.15), xlabel="RMS before the norm", ylabel="RMS after it")
    style.headline(figure, title)
    return figure


def draw_gradients(
    depths: Sequence[int], sizes: Mapping[str, Mapping[str, Sequence[float]]], title: str
) -> Figure:
    """Length of the gradient of some matrices of block 0, by the number of blocks; a panel for each matrix."""
    figure, axes = plt.subplots(1, len(sizes), figsize=(style.WIDTH, 3.6))
    for ax, (matrix, by_norm) in zip(axes, sizes.items(), strict=True):
        for (name, values), colour in zip(by_norm.items(), (style.NORM, style.WRONG), strict=True):
            ax.plot(depths, values, "o-", color=colour, label=f"norm {name}")
        ax.set_yscale("log")
        ax.minorticks_off()
        ax.set_xticks(depths)
        ax.set(xlabel="blocks")
        ax.set_title(matrix, fontsize=12, fontweight="normal")
    axes[0].set_ylabel("gradient in block 0 (length)")
    axes[0].legend()
    style.headline(figure, title)
    return figure


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
    style.headline(figure, title)
    return figure
