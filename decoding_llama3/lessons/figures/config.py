"""Part 2 - the figures of what a configuration builds: arrays in, a figure out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable


def draw_toy_lookup(
    words: Sequence[str], table: Float[Tensor, "vocab dim"], ids: Int[Tensor, " seq"], title: str
) -> Figure:
    """A small table with a row per word, and the rows that a text of these ids picks, in the text's order."""
    height = 0.36 * max(len(words), len(ids)) + 1.3
    figure, (left, gap, right) = plt.subplots(1, 3, figsize=(style.WIDTH, height), width_ratios=(4, 2, 4))
    gap.axis("off")
    colours = dict(style.with_looks(sorted(set(ids.tolist())), style.VARIANTS[1:]))
    _draw_numbers(left, table, [f"{i} {word}" for i, word in enumerate(words)], colours, range(len(words)))
    right.yaxis.tick_right()
    _draw_numbers(right, table[ids], [words[int(i)] for i in ids], colours, ids.tolist())
    left.set_title(f"the table, {len(words)} x {table.shape[1]}", fontsize=12, fontweight="normal")
    right.set_title(f"what it makes of the ids {ids.tolist()}", fontsize=12, fontweight="normal")
    for place, i in enumerate(ids.tolist()):
        start, end = (table.shape[1] - 0.5, i), (-0.5, place)
        look = {"color": colours[i], "linewidth": 1.2, "alpha": 0.7}
        line = ConnectionPatch(start, end, "data", axesA=left, axesB=right, **look)
        figure.add_artist(line)
    style.headline(figure, title)
    return figure


def _draw_numbers(
    ax: Axes, values: Float[Tensor, "rows columns"], names: Sequence[str], colours: Mapping, ids: Sequence[int]
) -> None:
    """The values as a table; a row whose id has a colour is written in it."""
    for row, (numbers, i) in enumerate(zip(values.tolist(), ids, strict=True)):
        for column, number in enumerate(numbers):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="lightgrey"))
            ax.text(column, row, f"{number:g}", ha="center", va="center", color=colours.get(i, "grey"))
    ax.set(xlim=(-0.52, values.shape[1] - 0.48), ylim=(len(values) - 0.48, -0.52))
    ax.set_yticks(range(len(values)), list(names))
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for label, i in zip(ax.get_yticklabels(), ids, strict=True):
        label.set_color(colours.get(i, "grey"))


def draw_embedded_rows(
    words: Sequence[str], rows: Float[Tensor, "seq dim"], same: Sequence[int], title: str, features: int = 48
) -> Figure:
    """The first features of each token's row as a strip of colours; those at the places `same` are outlined."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.21 * len(words) + 1.4))
    shown = rows[:, :features]
    limit = shown.abs().quantile(0.99).item()
    image = ax.imshow(shown.numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    ax.set_yticks(range(len(words)), [drawable(word) for word in words])
    for place in same:
        ax.get_yticklabels()[place].set_color(style.MARKED)
        corner = (-0.45, place - 0.45)
        outline = {"fill": False, "edgecolor": style.MARKED, "linewidth": 2}
        ax.add_patch(Rectangle(corner, shown.shape[1] - 0.1, 0.9, **outline))
    ax.set_xlabel(f"feature (the first {shown.shape[1]} of {rows.shape[1]:,})")
    figure.colorbar(image, ax=ax, label="value", aspect=12)
    style.headline(figure, title)
    return figure


def draw_width_rule(
    dims: Sequence[int], widths: Mapping[str, Sequence[float]], at: tuple[int, float, int], title: str
) -> Figure:
    """The feed-forward's width by `dim`: the rule's line, and its steps; `at` has dim, unrounded and rounded."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.5))
    looks = (
        (style.RESIDUAL, 1.5, "default", 3),
        (style.FEED_FORWARD, 2, "steps-post", 2),
        (style.NEUTRAL, 6, "steps-post", 1),
    )
    for (name, values), (colour, width, drawn, layer) in style.with_looks(widths.items(), looks):
        ax.plot(dims, values, label=name, color=colour, linewidth=width, drawstyle=drawn, zorder=layer)
    dim, unrounded, rounded = at
    ax.plot([dim, dim], [unrounded, rounded], "o-", color=style.MARKED, markersize=6, zorder=4)
    ax.annotate(
        f"{unrounded:,} becomes {rounded:,}", (dim, rounded), (-8, 4), textcoords="offset points",
        color=style.MARKED, ha="right", va="bottom",
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set(xlabel="dim", ylabel="hidden_dim")
    ax.legend(loc="lower right")
    style.headline(figure, title)
    return figure


@dataclass(frozen=True)
class Rung:
    """What a sentence is at one height of a model: one bundle of rows, or some side by side, each so many numbers
    wide. `added` rows are added to the residual stream; those `inside` belong to a block.
    """

    name: str
    widths: Sequence[int]
    added: bool = False
    inside: bool = False


def draw_shapes_by_step(panels: Mapping[str, tuple[Sequence[Rung], int]], n_tokens: int, title: str) -> Figure:
    """The rows of a sentence on its way up, to scale in width: a line per token, the last token's marked.

    Each panel is a model at a scale of its own: its stages from the bottom to the top, and its number of blocks.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 6.0), sharey=True)
    for ax, (name, (stages, n_blocks)) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        widest = max(max(stage.widths) for stage in stages)
        for level, stage in enumerate(stages):
            _draw_bundles(ax, level, stage, n_tokens, widest)
        _draw_stream(ax, stages, -0.06 * widest)
        ax.text(0, len(stages) - 1.06, "the last token", va="top", color=style.MARKED, fontsize=11)
        inside = [level for level, stage in enumerate(stages) if stage.inside]
        if inside:
            ax.axhspan(min(inside) - 0.17, max(inside) + 0.83, color=style.RESIDUAL, alpha=0.13, linewidth=0)
            ax.text(
                1.02 * widest, max(inside) + 0.33, f"one of {n_blocks} blocks", ha="right", va="center",
                color="dimgrey", fontsize=11,
            )  # fmt: skip
        ax.set(xlim=(-0.1 * widest, 1.03 * widest), ylim=(-0.3, len(stages)), xticks=[])
        ax.set_yticks(np.arange(len(stages)) + 0.33, [stage.name for stage in stages])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(f"{name}, at its own scale", fontsize=12, fontweight="normal")
    style.headline(figure, title)
    return figure


def _draw_bundles(ax: Axes, level: int, stage: Rung, n_tokens: int, widest: int) -> None:
    """The bundles of a stage side by side, and their shapes beside them, or below the one that fills the panel."""
    y, x = (level + np.linspace(0, 0.66, n_tokens))[::-1], 0.0
    colours = [*[style.RESIDUAL] * (n_tokens - 1), style.MARKED]
    for width in stage.widths:
        ax.hlines(y, x, x + width, color=colours, linewidth=0.9)
        x += width + 0.03 * widest
    words = ", ".join(f"{n_tokens} x {width:,}" if width > 1 else f"{n_tokens} ids" for width in stage.widths)
    full = x > 0.7 * widest
    at = (widest, level - 0.06) if full else (x - 0.01 * widest, level + 0.33)
    ax.text(*at, words, ha="right" if full else "left", va="top" if full else "center", fontsize=11)


def _draw_stream(ax: Axes, stages: Sequence[Rung], x: float) -> None:
    """The residual stream as a line at `x`, from the first stage in which rows are added to the last, with a plus
    at each addition.
    """
    added = [level for level, stage in enumerate(stages) if stage.added]
    if not added:
        return
    first = min(level for level, stage in enumerate(stages) if stage.inside) - 0.67
    ax.plot((x, x), (first, max(added) + 1.33), color=style.RESIDUAL, linewidth=4, solid_capstyle="butt")
    circle = {"boxstyle": "circle,pad=0.1", "facecolor": style.RESIDUAL, "edgecolor": "white"}
    for level in added:
        ax.text(
            x, level + 0.33, "+", ha="center", va="center", weight="bold", color="white", bbox=circle, fontsize=11
        )
