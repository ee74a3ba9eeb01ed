"""Part 1 - the figures of the tour, one sentence through the whole model: arrays in, a figure out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label

_SILHOUETTE, _INK = "#DCDCDC", "#5F5F5F"
_LANES = (0.55, 1.05, 1.55, 2.05)  # heights of the streams, the last token's at the bottom
_MIDDLE, _ABOVE = 3.45, 4.75  # of what reads from them, and of what helps attention
# What stands over each silhouette, and its left, lower, right and upper edge, from the first to the tenth.
STATIONS = {
    "tokens": (0.0, 0.25, 2.0, 2.35),
    "embedding": (3.35, 0.25, 4.0, 2.35),
    "norm": (5.75, 3.05, 6.45, 3.85),
    "attention": (6.95, 3.05, 9.2, 3.85),
    "RoPE": (6.95, 4.35, 7.95, 5.15),
    "cache": (8.2, 4.35, 9.2, 5.15),
    "norm ": (10.15, 3.05, 10.85, 3.85),
    "feed-forward": (11.35, 3.05, 13.5, 3.85),
    "norm  ": (15.35, 0.2, 16.05, 0.9),
    "output": (16.55, 0.2, 17.25, 0.9),
}


def draw_ride(
    words: Sequence[str],
    ids: Sequence[int],
    vectors: Sequence[Float[Tensor, "tokens features"]],
    guesses: Sequence[tuple[str, float]],
    answer: str,
    title: str,
) -> Figure:
    """At most four tokens ride through the model, from their ids to the next word.

    `vectors` are features of each token's stream at the start and at the end; `guesses` are, after 0, 1, ... all
    blocks, the most probable token and the probability of `answer`.
    """
    figure, (ride, depth) = plt.subplots(2, 1, figsize=(style.WIDTH, 5.9), height_ratios=(5.3, 1.9))
    ride.set(xlim=(-0.1, 18.8), ylim=(-0.35, 5.75))
    ride.axis("off")
    lanes = _LANES[4 - len(words) :][::-1]
    _draw_silhouettes(ride, len(guesses) - 1)
    for i, (y, word, token) in enumerate(zip(lanes, words, ids, strict=True)):
        ride.text(1.0, y, token_label(word), ha="center", va="center", fontsize=12, zorder=5)
        ride.text(2.68, y, f"{token:,}", ha="center", va="center", fontsize=11, color=_INK)
        end = 15.35 if y == lanes[-1] else 15.15
        ride.plot((4.0, end), (y, y), color=style.RESIDUAL, linewidth=2.5, zorder=1, solid_capstyle="butt")
        for x, carried in zip((4.15, 14.1), vectors, strict=True):
            _draw_numbers(ride, carried[i], x, y)
    _draw_branches(ride, lanes)
    ride.text(9.9, 0.02, "residual stream: one vector per token", ha="center", color=_INK, fontsize=11)
    ride.text(16.9, 1.35, "read only\nthe last line", ha="center", va="bottom", color=_INK, fontsize=11)
    ride.text(17.45, lanes[-1] + 0.35, "softmax", va="center", color=_INK, fontsize=11)
    ride.text(17.45, lanes[-1], token_label(answer), va="center", fontsize=12, fontweight="bold")
    _draw_depth(depth, guesses, answer)
    style.headline(figure, title)
    return figure


def _draw_silhouettes(ax: Axes, n_blocks: int) -> None:
    for number, (name, (left, low, right, high)) in enumerate(STATIONS.items(), 1):
        ax.add_patch(
            FancyBboxPatch(
                (left, low),
                right - left,
                high - low,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor="#F3F3F3" if number == 1 else _SILHOUETTE,
                edgecolor="none",
                zorder=3,
            )
        )
        middle = (left + right) / 2
        in_block = number in (3, 4, 7, 8)  # their names stand below, clear of the arrows from RoPE and cache
        at, va = (low - 0.1, "top") if in_block else (high + 0.08, "bottom")
        ax.text(middle, at, name.strip(), ha="center", va=va, fontsize=11, color=_INK)
        y = low + 0.02 if number in (1, 2, 9, 10) else (low + high) / 2
        place = (middle, y - 0.12, "top") if number in (1, 2, 9, 10) else (middle, y, "center")
        if number in (4, 8):  # what happens to the lines stands beside the number
            place = (left + 0.35, y, "center")
        ax.text(*place[:2], str(number), ha="center", va=place[2], fontsize=12, fontweight="bold", zorder=6)
    frame = {"boxstyle": "round,pad=0,rounding_size=0.15", "fill": False, "linestyle": (0, (4, 3)), "linewidth": 1}
    ax.add_patch(FancyBboxPatch((5.2, 0.3), 8.65, 5.35, edgecolor=_INK, **frame))
    ax.text(13.7, 5.55, f"a block; there are {n_blocks}", ha="right", va="top", color=_INK, fontsize=11)


def _draw_branches(ax: Axes, lanes: Sequence[float]) -> None:
    """What reads from every stream and adds to it again; inside attention alone something passes between lines."""
    for start, norm, part, end in ((5.5, 5.75, 6.95, 9.2), (9.85, 10.15, 11.35, 13.5)):
        for a, b, head in (
            ((start, min(lanes)), (start, _MIDDLE), False),
            ((start, _MIDDLE), (norm, _MIDDLE), True),
            ((norm + 0.7, _MIDDLE), (part, _MIDDLE), True),
            ((end, _MIDDLE), (end + 0.25, _MIDDLE), False),
            ((end + 0.25, _MIDDLE), (end + 0.25, min(lanes)), False),
        ):
            _arrow(ax, a, b, head)
        for y in lanes:  # a dot where a line is read, a plus where it is added to
            ax.plot(start, y, "o", color=_INK, markersize=4, zorder=4)
            ax.plot(end + 0.25, y, "o", color="white", markeredgecolor=_INK, markersize=10, zorder=4)
            ax.text(end + 0.25, y, "+", ha="center", va="center", fontsize=11, color=_INK, zorder=5)
    small = [_MIDDLE + 0.4 * (y - 1.3) for y in lanes]  # the same lines inside attention and feed-forward
    for y in small:
        ax.plot((7.7, 9.0), (y, y), color=style.RESIDUAL, linewidth=1.2, zorder=4)
        ax.plot((12.1, 13.3), (y, y), color=style.RESIDUAL, linewidth=1.2, zorder=4)
        ax.plot(12.7, y, "s", color="black", markersize=3.5, zorder=5)
    for y in small[:-1]:
        _curve(ax, (7.8, y), (8.75, small[-1]))
    for x in (7.45, 8.7):
        _arrow(ax, (x, _ABOVE - 0.4), (x, _MIDDLE + 0.4), True)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], head: bool) -> None:
    look = {"arrowstyle": "-|>" if head else "-", "mutation_scale": 10, "color": _INK, "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, zorder=2, **look))


def _curve(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Inside attention, from an earlier token's line to the last one's."""
    way = {"arrowstyle": "-|>", "mutation_scale": 7, "connectionstyle": "arc3,rad=-0.25"}
    ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=1, zorder=4, color="black", linewidth=1.1, **way))


def _draw_numbers(ax: Axes, numbers: Float[Tensor, " features"], x: float, y: float) -> None:
    """A few features as bars on a lane, the tallest of them a fifth of a unit."""
    heights = 0.2 * numbers / numbers.abs().max().clamp(min=1e-9)
    places = x + 0.085 * np.arange(len(numbers))
    ax.bar(places, heights.tolist(), 0.07, bottom=y, color="black", zorder=4, align="edge")


def _draw_depth(ax: Axes, guesses: Sequence[tuple[str, float]], answer: str) -> None:
    """What each depth would put first, and how probable the answer is there."""
    chances = [chance for _, chance in guesses]
    ax.bar(range(len(chances)), chances, color=style.PREDICTION, width=0.5)
    shown = style.thinned(len(chances), 9)
    for i in shown:
        ax.text(i, chances[i] + 0.04, f"{chances[i]:.3f}", ha="center", va="bottom", fontsize=11)
    ax.set_xticks(shown, [f"{i}\n{token_label(guesses[i][0])}" for i in shown])
    ax.set(ylim=(0, 1.35), yticks=[], ylabel=f"p({token_label(answer)})")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("if the model ended after so many blocks; below, the word that it would put first")


def draw_next(panels: Mapping[str, tuple[Float[Tensor, " top"], Sequence[str]]], title: str) -> Figure:
    """The most probable next tokens and what is left for all others; a panel for each model."""
    longest = max(len(tokens) for _, tokens in panels.values())
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 0.34 * longest + 1.6), squeeze=False)
    for ax, (name, (probabilities, tokens)) in zip(axes[0], panels.items(), strict=True):
        values = [*probabilities.tolist(), max(0.0, 1 - probabilities.sum().item())]
        bars = ax.barh(
            range(len(values)), values, color=[style.PREDICTION] * len(tokens) + ["lightgrey"], height=0.75
        )
        ax.bar_label(bars, [f"{value:.3f}" for value in values], padding=4)
        ax.set_yticks(range(len(values)), [*map(token_label, tokens), "all others"])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1.18 * max(values)), xlabel="probability")
        ax.set_title(name, fontsize=12, fontweight="normal")
    style.headline(figure, title)
    return figure


def draw_six_logits(
    rows: Mapping[str, Sequence[int]], vector: Sequence[int], logits: Sequence[int], title: str
) -> Figure:
    """A row of numbers for each word, the arithmetic of its product with a vector, and the sum as a bar."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.6), width_ratios=(3, 2))
    left.set(xlim=(0, 10), ylim=(len(rows) - 0.4, -1.6))
    left.axis("off")
    left.text(0.2, -1.1, "x, the last vector:", va="center", color=_INK)
    left.text(4.7, -1.1, _numbers(vector), va="center", fontweight="bold", family="monospace")
    for y, (word, row) in enumerate(rows.items()):
        left.text(0.2, y, token_label(word), va="center")
        left.text(1.7, y, _numbers(row), va="center", family="monospace")
        products = " ".join(f"{u:+d}·{x}" if x >= 0 else f"{u:+d}·({x})" for u, x in zip(row, vector, strict=True))
        left.text(4.7, y, products, va="center", family="monospace", color=_INK)
    bars = right.barh(range(len(rows)), logits, color=style.PREDICTION, height=0.6)
    right.bar_label(bars, [f"{z:+d}" if z else "0" for z in logits], padding=4)
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(rows)), list(map(token_label, rows)))
    low, high = min(0, *logits), max(0, *logits)
    right.set(ylim=(len(rows) - 0.4, -1.6), xlim=(low - 0.8, high + 0.9), xlabel="logit, z")
    style.headline(figure, title)
    return figure


def _numbers(values: Sequence[int]) -> str:
    return "(" + ", ".join(f"{value:2d}" for value in values) + ")"


def draw_softmax(words: Sequence[str], logits: Float[Tensor, " vocab"], title: str) -> Figure:
    """Logits, their exponentials and these divided by their sum; each bar says its value."""
    exponentials = logits.exp()
    total = exponentials.sum()
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 3.2), sharey=True)
    stages = (
        ("logits, $z_i$", logits, "{:g}"),
        (f"$e^{{z_i}}$, together {total:.2f}", exponentials, "{:.2f}"),
        (f"divided by {total:.2f}: $p_i$", exponentials / total, "{:.3f}"),
    )
    for ax, (name, values, form) in zip(axes, stages, strict=True):
        bars = ax.barh(range(len(words)), values.tolist(), color=style.PREDICTION, height=0.6)
        ax.bar_label(bars, [form.format(value) for value in values.tolist()], padding=4)
        ax.axvline(0, color="black", linewidth=0.8)
        low, high = min(0.0, values.min().item()), values.max().item()
        ax.set(xlim=(low - 0.22 * (high - low) * (low < 0), high + 0.3 * (high - low)), xticks=[])
        ax.set_title(name, fontsize=12, fontweight="normal")
    axes[0].set_yticks(range(len(words)), list(map(token_label, words)))
    axes[0].invert_yaxis()
    style.headline(figure, title)
    return figure


def draw_losses(words: Sequence[str], probabilities: Float[Tensor, " vocab"], title: str) -> Figure:
    """The loss of each word, had it come, on the curve of -ln p: nats on the left, bits on the right."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.3))

    def in_bits(nats):
        return nats / math.log(2)

    def in_nats(bits):
        return bits * math.log(2)

    p = np.linspace(0.006, 1, 400)
    ax.plot(p, -np.log(p), color=style.RESIDUAL)
    losses = -probabilities.log()
    above: dict[float, list[str]] = {}
    for word, chance, loss in zip(words, probabilities.tolist(), losses.tolist(), strict=True):
        ax.plot(chance, loss, "o", color=style.PREDICTION)
        above.setdefault(round(chance, 6), []).append(token_label(word))
    for chance, names in above.items():
        loss = -math.log(chance)
        text = f"{' and '.join(names)}: {loss:.2f} nats, {loss / math.log(2):.2f} bits"
        ax.annotate(text, (chance, loss), xytext=(8, 3), textcoords="offset points", va="bottom")
    even = 1 / len(words)
    ax.plot(even, -math.log(even), "o", color=style.MARKED)
    ax.annotate(
        f"knowing nothing, 1/{len(words)}: {-math.log(even):.2f} nats, {-math.log2(even):.2f} bits",
        (even, -math.log(even)),
        xytext=(0.42, -math.log(even) + 0.75),
        textcoords="data",
        color=style.MARKED,
        arrowprops={"arrowstyle": "-", "color": style.MARKED, "linewidth": 0.8},
    )
    ax.set(xlim=(0, 1), ylim=(0, 5.1), xlabel="p, the probability given to the word that came")
    ax.set_ylabel("loss (nats)")
    bits = ax.secondary_yaxis("right", functions=(in_bits, in_nats))
    bits.set_ylabel("loss (bits)")
    style.headline(figure, title)
    return figure


def draw_surprises(
    panels: Mapping[str, tuple[Sequence[str], Float[Tensor, " seq"]]], title: str, shared: int | None = None
) -> Figure:
    """The loss of each token of a text with the mean as a line; a panel for each model, one over the other.

    `shared` is how many tokens at the end the models have in common: these stand below each other, and the mean is
    theirs. None: nothing is in common, and each mean is that of all tokens.
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(style.WIDTH, 0.7 + 1.8 * len(panels)), squeeze=False)
    most = max(len(tokens) for tokens, _ in panels.values())
    highest = max(max(losses.max().item() for _, losses in panels.values()), 0.1)
    for ax, (name, (tokens, losses)) in zip(axes[:, 0], panels.items(), strict=True):
        first = most - len(tokens) if shared else 0
        places = range(first, first + len(tokens))
        bars = ax.bar(places, losses.tolist(), color=style.PREDICTION, width=0.6)
        on_white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # where the mean runs through a number
        ax.bar_label(bars, [f"{loss:.2f}" for loss in losses.tolist()], padding=2, fontsize=11, bbox=on_white)
        mean = losses[-shared:].mean().item() if shared else losses.mean().item()
        ax.axhline(mean, color=style.MARKED, linestyle="--", linewidth=1.2)
        ax.text(
            1.0, mean, f" mean {mean:.2f}", color=style.MARKED, va="center", transform=ax.get_yaxis_transform()
        )
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(tokens) > 13 else {}
        ax.set_xticks(places, list(map(token_label, tokens)), **turned)
        ax.tick_params(axis="x", length=0)
        ax.set(xlim=(-0.6, (most if shared else len(tokens)) - 0.4), ylim=(0, 1.22 * highest), ylabel="nats")
        ax.set_title(name, fontsize=12, fontweight="normal")
    style.headline(figure, title)
    return figure


def last_features(
    x: Float[Tensor, "seq dim"], tokens: int, features: int = 12
) -> Float[Tensor, "tokens features"]:
    """The first features of the last tokens, for bars on a lane."""
    return torch.as_tensor(x)[-tokens:, :features].float().cpu()
