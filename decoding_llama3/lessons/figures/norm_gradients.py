"""Part 3 - the figures of gradients and of the place of the norm: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoding_llama3.lessons import style


def draw_slope(weights: Sequence[float], step: float, title: str) -> Figure:
    """A loss that is the square of a weight minus 2, its slope at some weights, and the step against each slope.

    A step is the gradient times `step`, with the sign turned.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    w = np.linspace(-1.4, 5.4, 200)
    ax.plot(w, (w - 2) ** 2, color=style.RESIDUAL)
    for at in weights:
        slope, loss = 2 * (at - 2), (at - 2) ** 2
        ends = np.array([at - 0.6, at + 0.6])
        ax.plot(ends, loss + slope * (ends - at), color=style.MARKED)
        ax.plot(at, loss, "o", color=style.MARKED)
        name = f"w = {at:g}: gradient {slope:+g}" if slope else f"w = {at:g}: gradient 0, no step"
        side = "right" if slope < 0 else "left" if slope > 0 else "center"
        ax.text(at + 0.25 * np.sign(slope), loss - 0.1 if slope else -1.7, name, va="center", ha=side)
        if slope:
            ax.annotate("", (at - step * slope, loss), (at, loss), arrowprops={"arrowstyle": "->", "linewidth": 2})
            ax.text(at - step * slope / 2, loss + 0.35, "step", ha="center")
    ax.set(xlabel="a weight, w", ylabel="the loss, (w - 2)²", ylim=(-2.6, 11), xlim=(-2.2, 6.2))
    style.headline(figure, title)
    return figure


def draw_gradients(
    depths: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    ylabel: str,
    title: str,
) -> Figure:
    """A gradient by the number of blocks: a panel for each start of the weights, a colour for each place of the
    norm, a line for each draw. All panels have one axis."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.9), sharey=True)
    for ax, (start, by_norm) in zip(axes, panels.items(), strict=True):
        for (name, draws), colour, mark in zip(by_norm.items(), (style.NORM, style.WRONG), "os", strict=True):
            for i, values in enumerate(draws):
                ax.plot(
                    depths, values, f"{mark}-", color=colour, linewidth=1.3, markersize=5, alpha=0.75,
                    label=name if i == 0 else None,
                )  # fmt: skip
        ax.set_yscale("log")
        ax.minorticks_off()
        ax.set_xticks(depths)
        ax.set(xlabel="blocks")
        ax.set_title(start, fontsize=12, fontweight="normal")
    logs = np.log10(
        [value for kinds in panels.values() for draws in kinds.values() for row in draws for value in row]
    )
    powers = 10.0 ** np.arange(np.floor(logs.min()), np.ceil(logs.max()) + 1)
    axes[0].set_yticks(powers, [f"{power:g}" for power in powers])
    axes[0].set(ylabel=ylabel, ylim=(powers[0], powers[-1]))
    axes[-1].legend(loc="upper left")
    style.headline(figure, title)
    return figure


def draw_placements(parts: Sequence[str], title: str) -> Figure:
    """A block with the norm before its parts, and one with the norm after its sums; the way back is marked."""
    figure, axes = plt.subplots(2, 1, figsize=(style.WIDTH, 4.6))
    formulas = ("pre-norm: x + f(norm(x))", "post-norm: norm(x + f(x))")
    for ax, formula in zip(axes, formulas, strict=True):
        ax.set(xlim=(0, 12), ylim=(-0.75, 2))
        ax.axis("off")
        ax.set_title(formula, fontsize=12, fontweight="normal")
        ax.plot([0.2, 11.8], [0, 0], color=style.RESIDUAL, linewidth=11, zorder=0, solid_capstyle="butt")
        for i, part in enumerate(parts):
            _draw_part(ax, 0.8 + 11 * i / len(parts), part, before=formula.startswith("pre"))
        back = {"arrowstyle": "->", "color": style.MARKED, "linewidth": 2.5}
        ax.annotate("", (0.1, 0), (11.9, 0), arrowprops=back, zorder=1)
        ax.text(2.6, -0.38, "the gradient's way back", color=style.MARKED, ha="center", va="center")
    style.headline(figure, title)
    return figure


def _draw_part(ax: Axes, x: float, part: str, before: bool) -> None:
    """One part with its branch off the stream; its norm stands in the branch, or on the stream after the sum."""
    ax.plot([x, x, x + 3.7], [0, 1.3, 1.3], color="black", linewidth=1.2, zorder=2)
    ax.annotate(
        "", (x + 3.7, 0.2), (x + 3.7, 1.33), arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 1.2}
    )
    slopes = {x + 3.7: "× 1"}
    if before:
        _draw_box(ax, x + 0.9, 1.3, "norm")
    else:
        _draw_box(ax, x + 4.8, 0, "norm")
        slopes[x + 4.8] = "× w/RMS"
    _draw_box(ax, x + 2.5, 1.3, part)
    ax.plot(x + 3.7, 0, "o", color=style.RESIDUAL, markersize=17, zorder=3)
    ax.text(x + 3.7, 0, "+", color="white", ha="center", va="center", fontweight="bold", zorder=4)
    for at, slope in slopes.items():
        ax.text(at, -0.55, slope, color=style.MARKED, ha="center", va="center")


def _draw_box(ax: Axes, x: float, y: float, name: str) -> None:
    colour = style.NORM if name == "norm" else "#DDDDDD"
    box = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "white"}
    ax.text(x, y, name, ha="center", va="center", color="white" if name == "norm" else "black", bbox=box, zorder=4)
