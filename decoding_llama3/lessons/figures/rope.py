"""Part 4 - the figures of rotary embeddings: arrays in, a figure out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle, Wedge
from torch import Tensor

from decoding_llama3.lessons import style

PALE = 0.3  # how much of its colour keeps what was there before the turn
Arrow = tuple[float, float]
FourArrows = tuple[Arrow, Arrow, Arrow, Arrow]  # query and key, then both turned


def draw_query_by_hand(
    matrix: Float[Tensor, "wishes features"],
    x: Float[Tensor, " features"],
    labels: tuple[Sequence[str], Sequence[str], str],
    title: str,
) -> Figure:
    """A matrix of a few numbers, the vector it multiplies, and the query, each number in its cell.

    `labels`: the names of the features, of the query's numbers, and the word.
    """
    features, wishes, word = labels
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 2.9), width_ratios=(3, 1.6, 3))
    query = matrix @ x
    panels = (matrix, x[:, None], query[:, None])
    names = ("the matrix, wq", f"{word}, x", "its query, q")
    largest = max(values.abs().max().item() for values in panels)
    for ax, values, name, colour in zip(
        axes, panels, names, (style.QUERY, style.RESIDUAL, style.QUERY), strict=True
    ):
        _draw_cells(ax, values, largest)
        ax.set_title(name, fontsize=12, color=colour)
    axes[0].set_xticks(range(len(features)), features)
    axes[0].set_yticks(range(len(wishes)), wishes)
    axes[1].yaxis.tick_right()
    axes[1].set_yticks(range(len(features)), features)
    axes[2].yaxis.tick_right()
    sums = [
        f"= {' + '.join(f'{_in_brackets(a)} · {b:g}' for a, b in zip(row, x.tolist(), strict=True))}"
        for row in matrix.tolist()
    ]
    axes[2].set_yticks(range(len(wishes)), sums)
    for ax, sign in ((axes[1], "×"), (axes[2], "=")):
        middle = (ax.get_ylim()[0] + ax.get_ylim()[1]) / 2
        ax.text(-0.75, middle, sign, fontsize=20, ha="right", va="center")
    for ax in axes:
        ax.tick_params(length=0)
    style.headline(figure, title)
    return figure


def _in_brackets(value: float) -> str:
    return f"{value:g}" if value >= 0 else f"(−{-value:g})"


def _draw_cells(ax: Axes, values: Float[Tensor, "rows columns"], largest: float) -> None:
    """Each number in its cell: red above 0, blue below, the stronger the larger."""
    rows, columns = values.shape
    colours = plt.get_cmap(style.DIVERGING)
    for row in range(rows):
        for column in range(columns):
            value = values[row, column].item()
            shade = colours(0.5 + 0.35 * value / largest)
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=shade, linewidth=0))
            ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=14)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_scores_by_hand(
    query: Float[Tensor, "2"], keys: Float[Tensor, "words 2"], words: Sequence[str], title: str
) -> Figure:
    """One query and some keys as arrows of the plane, and each score with its sum written out."""
    figure, (plane, sums) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.4), width_ratios=(2, 3))
    ends = torch.cat((query[None], keys, torch.zeros(1, 2)))
    for end, colour, name in (
        *zip(keys.tolist(), len(words) * [style.KEY], words, strict=True), (query.tolist(), style.QUERY, "query")
    ):  # fmt: skip
        _draw_arrow(plane, end, colour)
        x, y = end[0] + (0.1 if end[0] >= 0 else -0.1), end[1] + (0.1 if end[1] >= 0 else -0.1)
        side, up = "left" if end[0] >= 0 else "right", "bottom" if end[1] >= 0 else "top"
        plane.text(x, y, name, color=colour, ha=side, va=up)
    low, high = ends.amin(dim=0), ends.amax(dim=0)
    plane.set(xlim=(low[0].item() - 1.2, high[0].item() + 1.0), ylim=(low[1].item() - 0.5, high[1].item() + 0.5))
    plane.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    plane.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    plane.set(aspect="equal", xlabel="description", ylabel="article")
    scores = (keys @ query).tolist()
    sums.barh(range(len(words)), scores, color=style.RESIDUAL, height=0.5)
    for row, (key, score) in enumerate(zip(keys.tolist(), scores, strict=True)):
        products = " + ".join(f"{a:g} · {b:g}" for a, b in zip(query.tolist(), key, strict=True))
        products = products.replace("· -", "· −")
        sums.text(max(score, 0), row, f"  {products} = {score:g}", va="center")
    sums.set_yticks(range(len(words)), words)
    sums.invert_yaxis()
    sums.axvline(0, color="black", linewidth=0.8)
    sums.set_xlim(1.1 * min(0.0, *scores), 2.2 * max(1.0, *scores))
    sums.set_xlabel("score: query · key")
    style.headline(figure, title)
    return figure


def _draw_arrow(ax: Axes, end: Sequence[float], colour: str, alpha: float = 1.0) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0, "alpha": alpha}
    ax.annotate("", (end[0], end[1]), (0, 0), arrowprops=arrow)


def draw_attempts(
    marks: Mapping[str, Float[Tensor, "positions features"]],
    changes: Mapping[str, Float[Tensor, " shifts"]],
    title: str,
) -> Figure:
    """Ways to mark a position: above the marks, below how a score changes when both words move along.

    All changes are drawn to one scale; what leaves it says how far it goes.
    """
    figure, axes = plt.subplots(2, len(marks), figsize=(style.WIDTH, 5.4), height_ratios=(3, 2))
    largest = {name: change.abs().max().item() for name, change in changes.items()}
    size = max(1.0, 1.2 * sorted(largest.values())[-2])
    for column, (name, values) in enumerate(marks.items()):
        above, below = axes[:, column]
        limit = values.abs().max().item()
        above.imshow(values.numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        above.set_title(name, fontsize=12, fontweight="normal")
        above.set(xlabel="feature", xticks=range(values.shape[1]))
        below.plot(changes[name], color=style.PREDICTION if largest[name] < 1e-3 else style.WRONG)
        below.set(ylim=(-size, size), xlabel="both moved by")
        if largest[name] > size:
            below.text(
                0.97,
                0.08,
                f"goes to {largest[name]:,.0f}",
                transform=below.transAxes,
                ha="right",
                color=style.WRONG,
            )
    axes[0, 0].set_ylabel("position")
    axes[1, 0].set_ylabel("change of\nthe score")
    style.headline(figure, title)
    return figure


def draw_wedges(panels: Mapping[str, FourArrows], title: str) -> Figure:
    """Query and key as arrows, before and after the turn, with the wedge between the turned ones.

    A panel for each pair of positions: (query, key, turned query, turned key).
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.0), squeeze=False)
    for ax, (name, (query, key, turned_query, turned_key)) in zip(axes[0], panels.items(), strict=True):
        _draw_wedge(ax, query, key, turned_query, turned_key)
        ax.set_title(name, fontsize=12, fontweight="normal", loc="center")
    style.headline(figure, title)
    return figure


def _draw_wedge(ax: Axes, query: Arrow, key: Arrow, turned_query: Arrow, turned_key: Arrow) -> None:
    longest = max(math.hypot(*turned_query), math.hypot(*turned_key))
    start, end = (math.degrees(math.atan2(y, x)) for x, y in (turned_key, turned_query))
    between = (end - start + 180) % 360 - 180
    low, high = (start, start + between) if between >= 0 else (start + between, start)
    ax.add_patch(Circle((0, 0), longest, fill=False, color="lightgrey"))
    ax.add_patch(Wedge((0, 0), 0.62 * longest, low, high, facecolor=style.ROPE, edgecolor=style.MARKED))
    ax.text(0, -1.5 * longest, f"wedge {abs(between):.0f}°", color=style.MARKED, ha="center", va="center")
    for before, after, colour, name in (
        (query, turned_query, style.QUERY, "query"), (key, turned_key, style.KEY, "key")
    ):  # fmt: skip
        _draw_arrow(ax, before, colour, PALE)
        _draw_arrow(ax, after, colour)
        size = math.hypot(*after)
        x, y = (value * (size + 0.2 * longest) / size for value in after)
        ax.text(x, y, name, color=colour, ha="center", va="center")
    ax.set(xlim=(-1.35 * longest, 1.35 * longest), ylim=(-1.7 * longest, 1.35 * longest), aspect="equal")
    ax.set_axis_off()


def draw_wedge_and_score(arrows: FourArrows, scores: Float[Tensor, " distances"], at: float, title: str) -> Figure:
    """Left the two arrows and their wedge; right the score by distance, and the distance they are `at`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.0), width_ratios=(1, 2))
    _draw_wedge(left, *arrows)
    distance = torch.linspace(0, 24, len(scores))
    right.plot(distance, scores, color=style.RESIDUAL)
    here = scores[(distance - at).abs().argmin()].item()
    right.plot(at, here, "o", color=style.MARKED, markersize=9)
    right.axhline(here, color=style.MARKED, linewidth=0.8, linestyle="--")
    right.set(xlabel="distance, m - n (tokens)", ylabel="score", xlim=(-0.5, 24.5))
    style.headline(figure, title)
    return figure


def draw_three_distances(
    panels: Mapping[int, FourArrows], scores: Float[Tensor, " distances"], title: str
) -> Figure:
    """Above, the two arrows and their wedge at some distances; below, the score by distance, a dot for each."""
    figure = plt.figure(figsize=(style.WIDTH, 5.6))
    layout: Any = [[*map(str, panels)], len(panels) * ["curve"]]
    axes = figure.subplot_mosaic(layout, height_ratios=(3, 2))
    curve = axes["curve"]
    distance = torch.linspace(0, 24, len(scores))
    curve.plot(distance, scores, color=style.RESIDUAL)
    for at, arrows in panels.items():
        _draw_wedge(axes[str(at)], *arrows)
        axes[str(at)].set_title(f"distance {at}", fontsize=12, fontweight="normal", loc="center")
        here = scores[(distance - at).abs().argmin()].item()
        curve.plot(at, here, "o", color=style.MARKED, markersize=9)
        curve.annotate(
            f"{here:.2f}", (at, here), (8, -18 if here > 0 else 14), textcoords="offset points",
            color=style.MARKED, ha="center", va="center",
        )  # fmt: skip
    curve.set(xlabel="distance, m - n (tokens)", ylabel="score", xlim=(-0.5, 24.5))
    style.headline(figure, title)
    return figure


def draw_clock(hands: Float[Tensor, "positions pairs 2"], names: Sequence[str], title: str) -> Figure:
    """Some pairs of one arrow at positions 0, 1, ...: a dial for each pair, a hand for each position."""
    figure, axes = plt.subplots(1, hands.shape[1], figsize=(style.WIDTH, 3.1))
    for i, ax in enumerate(axes):
        ax.add_patch(Circle((0, 0), 1, fill=False, color="lightgrey"))
        ends = hands[:, i]
        crowded = (ends[1] - ends[0]).norm().item() < 0.15
        for position, (x, y) in enumerate(ends.tolist()):
            fade = 1 - 0.75 * position / len(ends)
            ax.plot([0, x], [0, y], color=style.QUERY, alpha=fade, linewidth=2.5)
            if not crowded:
                ax.text(1.18 * x, 1.18 * y, str(position), ha="center", va="center", fontsize=11)
        if crowded:
            x, y = (1.28 * ends[len(ends) // 2]).tolist()
            ax.text(x, y, f"0–{len(ends) - 1}", ha="center", va="center", fontsize=11)
        ax.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
        ax.set_title(names[i], fontsize=12, fontweight="normal", loc="center")
        ax.set_axis_off()
    style.headline(figure, title)
    return figure


def draw_phase_map(angles: Float[Tensor, "positions pairs"], at: int, title: str) -> Figure:
    """The angle of every pair as a colour that comes back after a turn; a frame around position `at`."""
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 3.8), width_ratios=(1, 2), sharey=True)
    turn = 2 * math.pi
    looks = {"cmap": "twilight_shifted", "vmin": 0, "vmax": turn, "aspect": "auto", "interpolation": "nearest"}
    for ax, part in zip(axes, (angles[: at + 10], angles), strict=True):
        ax.imshow((part.T % turn).numpy(), **looks)
        ax.set_title(f"positions 0 to {len(part) - 1}", fontsize=12, fontweight="normal")
        ax.set_xlabel("position, m")
    axes[0].add_patch(
        Rectangle((at - 0.5, -0.5), 1, angles.shape[1], fill=False, edgecolor="white", linewidth=2.5)
    )
    axes[0].set(xticks=sorted({0, at, len(angles[: at + 10]) - 1}), ylabel="pair, i")
    axes[0].set_yticks(style.thinned(angles.shape[1], 8))
    bar = figure.colorbar(axes[1].images[0], ax=axes, label="angle (radians)")
    bar.set_ticks([0, math.pi, turn], labels=["0", "π", "2π"])
    style.headline(figure, title)
    return figure


def draw_dials(
    before: tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs 2"]],
    after: tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs 2"]],
    products: tuple[Sequence[float], Sequence[float]],
    title: str,
) -> Figure:
    """A query (blue) and a key (orange), pair by pair: pale before the turn, full after it.

    Over each dial what the pair gives to the score, before and after. Queries and keys are drawn to a scale each.
    """
    pairs = len(before[0])
    figure, axes = plt.subplots(2, -(-pairs // 2), figsize=(style.WIDTH, 3.9))
    scales = [arrows.norm(dim=-1).max().item() for arrows in before]
    names = {"query": (style.QUERY, 1.0), "key": (style.KEY, 1.0)}
    names |= {f"{name}, before the turn": (colour, PALE) for name, (colour, _) in names.items()}
    handles = [Line2D([], [], color=c, alpha=alpha, linewidth=2.5, label=n) for n, (c, alpha) in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    for i, ax in enumerate(axes.flat[:pairs]):
        ax.add_patch(Circle((0, 0), 1, fill=False, color="lightgrey"))
        for side, scale, colour in zip(range(2), scales, (style.QUERY, style.KEY), strict=True):
            for arrows, alpha in ((before, PALE), (after, 1.0)):
                x, y = (arrows[side][i] / scale).tolist()
                ax.plot([0, x], [0, y], color=colour, alpha=alpha, linewidth=2.5, solid_capstyle="round")
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        ax.set_title(
            f"pair {i}\n{round(products[0][i]):+d} → {round(products[1][i]):+d}",
            fontsize=11,
            fontweight="normal",
            loc="center",
        )
    for ax in axes.flat:
        ax.set_axis_off()
    style.headline(figure, title)
    return figure
