"""Part 4 - the figures of rotary embeddings: arrays in, a figure out."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 2.9), width_ratios=(3, 1.4, 1.4))
    panels = (matrix, x[:, None], (matrix @ x)[:, None])
    names = ("the matrix, wq", f"{word}, x", "its query, q")
    for ax, values, name, colour in zip(
        axes, panels, names, (style.QUERY, style.RESIDUAL, style.QUERY), strict=True
    ):
        _draw_cells(ax, values, colour)
        ax.set_title(name, fontsize=12, fontweight="normal")
    axes[0].set_xticks(range(len(features)), features)
    axes[0].set_yticks(range(len(wishes)), wishes)
    axes[1].set_yticks(range(len(features)), features)
    axes[2].set_yticks(range(len(wishes)), wishes)
    style.headline(figure, title)
    return figure


def _draw_cells(ax: Axes, values: Float[Tensor, "rows columns"], colour: str) -> None:
    rows, columns = values.shape
    largest = max(1.0, values.abs().max().item())
    for row in range(rows):
        for column in range(columns):
            value = values[row, column].item()
            shade = 0.08 + 0.6 * abs(value) / largest
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=shade, linewidth=0))
            ax.text(column, row, f"{value:g}", ha="center", va="center", fontsize=14)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


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
    """Ways to mark a position: above the marks, below how a score changes when both words move along."""
    figure, axes = plt.subplots(2, len(marks), figsize=(style.WIDTH, 5.2), height_ratios=(3, 2))
    for column, (name, values) in enumerate(marks.items()):
        above, below = axes[:, column]
        limit = values.abs().max().item()
        above.imshow(values.numpy(), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        above.set_title(name, fontsize=12, fontweight="normal")
        above.set(xlabel="feature", xticks=range(values.shape[1]))
        change = changes[name]
        kept = change.abs().max().item() < 1e-3
        below.plot(change, color=style.PREDICTION if kept else style.WRONG)
        size = max(1.0, 1.15 * change.abs().max().item())
        below.set(ylim=(-size, size), xlabel="both moved by")
    axes[0, 0].set_ylabel("position")
    axes[1, 0].set_ylabel("change of the score")
    style.headline(figure, title)
    return figure


def draw_wedges(panels: Mapping[str, FourArrows], title: str) -> Figure:
    """Query and key as arrows, before and after the turn, with the wedge between the turned ones.

    A panel for each pair of positions: (query, key, turned query, turned key).
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.7), squeeze=False)
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
    ax.text(0, -1.2 * longest, f"wedge {abs(between):.0f}°", color=style.MARKED, ha="center", va="center")
    for before, after, colour, name in (
        (query, turned_query, style.QUERY, "query"), (key, turned_key, style.KEY, "key")
    ):  # fmt: skip
        _draw_arrow(ax, before, colour, PALE)
        _draw_arrow(ax, after, colour)
        size = math.hypot(*after)
        x, y = (value * (size + 0.2 * longest) / size for value in after)
        ax.text(x, y, name, color=colour, ha="center", va="center")
    ax.set(xlim=(-1.35 * longest, 1.35 * longest), ylim=(-1.35 * longest, 1.3 * longest), aspect="equal")
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
    """The angle of every pair at every position, as a colour that comes back after a turn; `at` is marked."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    turn = 2 * math.pi
    image = ax.imshow(
        (angles.T % turn).numpy(), cmap="twilight", vmin=0, vmax=turn, aspect="auto", interpolation="nearest"
    )
    ax.axvline(at, color=style.MARKED, linewidth=1.5)
    ax.text(at + 0.7, -0.8, f"position {at}", color=style.MARKED, va="bottom", clip_on=False)
    ax.set_yticks(style.thinned(angles.shape[1], 8))
    ax.set(xlabel="position, m", ylabel="pair, i")
    bar = figure.colorbar(image, ax=ax, label="angle (radians)")
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


def draw_layouts(order: Sequence[int], title: str) -> Figure:
    """The features of a small head in both orders: an arc joins each pair, a line leads each feature across."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.3))
    count = len(order)
    colours = plt.get_cmap("viridis")(torch.linspace(0, 0.75, count // 2).numpy())
    rows = (list(range(count)), 3.0, 1), (list(order), 0.0, -1)
    for features, height, side in rows:
        for place, feature in enumerate(features):
            colour = colours[feature // 2]
            ax.add_patch(Rectangle((place - 0.4, height - 0.3), 0.8, 0.6, color=colour, linewidth=0))
            ax.text(place, height, f"$x_{feature}$", color="white", ha="center", va="center", fontsize=14)
            ax.text(place - 0.36, height + 0.26, str(place), color="white", ha="left", va="top", fontsize=8)
        for pair in range(count // 2):
            ends = features.index(2 * pair), features.index(2 * pair + 1)
            arc = torch.linspace(0, math.pi, 40)
            x = sum(ends) / 2 + (ends[1] - ends[0]) / 2 * arc.cos()
            y = height + side * (0.35 + (0.35 + 0.09 * (ends[1] - ends[0])) * arc.sin())
            ax.plot(x, y, color=colours[pair], linewidth=2)
    for place, feature in enumerate(order):
        ax.plot([feature, place], [2.65, 0.35], color=colours[feature // 2], alpha=0.6, linewidth=1.5)
    ax.text(count - 0.3, 3.0, "neighbours: the paper,\nMeta, GGUF, this package", va="center")
    ax.text(count - 0.3, 0.0, "halves:\nHugging Face", va="center")
    ax.text(count - 0.3, 1.5, f"order = {list(order)}", va="center", color="dimgrey", fontsize=11)
    ax.set(xlim=(-0.7, count + 2.6), ylim=(-1.5, 4.3))
    ax.set_axis_off()
    style.headline(figure, title)
    return figure
