"""Part 5 - the figures of how attention is built: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable, token_label

Guess = tuple[str, float]  # a token, and its probability


def draw_repeated_word(
    places: Sequence[str], guesses: Mapping[str, Sequence[Sequence[Guess]]], title: str
) -> Figure:
    """The likeliest next tokens after each occurrence of a word: a column for each place, a row for each model."""
    figure, axes = plt.subplots(len(guesses), len(places), figsize=(style.WIDTH, 3.6), squeeze=False, sharex=True)
    for ax, place in zip(axes[0], places, strict=True):
        ax.set_title(f"{drawable(place)} ...", fontsize=12, fontweight="normal")
    for row, (kind, by_place) in zip(axes, guesses.items(), strict=True):
        for ax, guessed in zip(row, by_place, strict=True):
            names, shares = zip(*guessed, strict=True)
            shown = ax.barh(range(len(shares)), shares, color=style.PREDICTION, height=0.6)
            ax.bar_label(shown, [f"{share:.0%}" for share in shares], padding=3)
            ax.set_yticks(range(len(names)), [token_label(name) for name in names])
            ax.set(xlim=(0, 1.28), ylim=(len(names) - 0.4, -0.6), xticks=[])
            ax.spines["bottom"].set_visible(False)
        row[0].set_ylabel(kind)
    style.headline(figure, title)
    return figure


def draw_lookup(
    q: Float[Tensor, " features"],
    k: Float[Tensor, "words features"],
    v: Float[Tensor, "words features"],
    words: Sequence[str],
    title: str,
) -> Figure:
    """A soft dictionary with every number on the page: query, keys, scores, weights, values and their mixture."""
    scores = k @ q
    weights = scores.softmax(-1)
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.7))
    ax.set(xlim=(-0.9, 14.9), ylim=(-len(words) - 1.5, 1.9))
    ax.axis("off")
    half = 0.4 * len(q)  # of a row of boxes
    for x, name, colour in (
        (1.7 + half, "its key, k", style.KEY),
        (5.5, "score, q · k", "black"),
        (7.7, "weight", style.QUERY),
        (9.2 + half, "its value, v", style.VALUE),
        (12.3 + half, "weight × value", style.VALUE),
    ):
        ax.text(x, -0.25, name, ha="center", color=colour)
    ax.text(1.3, 1.15, f"query of {token_label(words[-1])}", ha="right", va="center", color=style.QUERY)
    _number_boxes(ax, 1.7, 1.15, q, style.QUERY)
    for row, word in enumerate(words):
        y = -row - 0.9
        ax.text(1.3, y, token_label(word), ha="right", va="center")
        _number_boxes(ax, 1.7, y, k[row], style.KEY)
        ax.text(5.5, y, f"{scores[row]:g}", ha="center", va="center")
        long = 1.1 * weights[row].item()
        ax.add_patch(Rectangle((7.1, y - 0.3), long, 0.6, color=style.QUERY, alpha=0.35))
        ax.text(7.2 + long, y, f"{weights[row]:.2f}", va="center")
        _number_boxes(ax, 9.2, y, v[row], style.VALUE)
        _number_boxes(ax, 12.3, y, weights[row] * v[row], style.VALUE)
    y = -len(words) - 1.05
    ax.text(12.0, y, "their sum, y", ha="right", va="center", color=style.MARKED)
    _number_boxes(ax, 12.3, y, weights @ v, style.MARKED)
    style.headline(figure, title)
    return figure


def _number_boxes(ax: Axes, x: float, y: float, values: Float[Tensor, " features"], colour: str) -> None:
    for i, value in enumerate(values.tolist()):
        ax.add_patch(Rectangle((x + 0.8 * i, y - 0.36), 0.76, 0.72, facecolor=colour, alpha=0.25))
        ax.text(x + 0.8 * i + 0.38, y, f"{round(value, 2):g}", ha="center", va="center", fontsize=11)


def draw_wiring(
    weights: Float[Tensor, "heads words"], n_kv_heads: int, words: Sequence[str], title: str
) -> Figure:
    """Queries wired to the keys and values that they share; beside each its row of weights over the words."""
    n_heads, few = len(weights), len(words) <= 8
    share, wide = n_heads // n_kv_heads, 9.6 / max(len(words), 4)
    figure, ax = plt.subplots(figsize=(style.WIDTH, 1.4 + 0.42 * n_heads))
    ax.set(xlim=(-0.9, 15.2), ylim=(n_heads - 0.4, -1.5), aspect="auto")
    ax.axis("off")
    for kv in range(n_kv_heads):
        middle = kv * share + (share - 1) / 2
        for head in range(kv * share, (kv + 1) * share):
            ax.plot([0, 3.0], [head, middle], color=style.KEY, linewidth=2, zorder=1)
        _badge(ax, 3.45, middle, f"$k_{{{kv}}}$, $v_{{{kv}}}$", "black", "round,pad=0.45", "white", style.KEY)
    for head, row in enumerate(weights.tolist()):
        _badge(ax, 0, head, f"$q_{{{head}}}$", "white", "circle,pad=0.25", style.QUERY, "none")
        for place, weight in enumerate(row):
            x = 5.2 + wide * place
            ax.add_patch(Rectangle((x, head - 0.44), 0.97 * wide, 0.88, facecolor=style.QUERY, alpha=weight))
            ax.add_patch(Rectangle((x, head - 0.44), 0.97 * wide, 0.88, fill=False, edgecolor="lightgrey"))
            if few:
                ink = "white" if weight > 0.55 else "black"
                ax.text(x + wide / 2, head, f"{weight:.2f}", ha="center", va="center", color=ink, fontsize=11)
    ax.text(0, -1.0, "queries", ha="center", color=style.QUERY)
    ax.text(3.45, -1.0, "shared", ha="center", color="dimgrey")
    for place, word in enumerate(words):
        turned = 0 if few else 90
        ax.text(5.2 + wide * (place + 0.5), -0.62, token_label(word), ha="center", va="bottom", rotation=turned)
    style.headline(figure, title)
    return figure


def _badge(ax: Axes, x: float, y: float, text: str, ink: str, shape: str, face: str, edge: str) -> None:
    frame = {"boxstyle": shape, "facecolor": face, "edgecolor": edge, "linewidth": 2.5}
    ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=12, bbox=frame, zorder=3)


def draw_likeness(maps: Mapping[str, Float[Tensor, "seq seq"]], words: Sequence[str], title: str) -> Figure:
    """Two ways to compare tokens with each other: row = the token that attends, column = the one attended to."""
    figure, axes = plt.subplots(1, len(maps), figsize=(style.WIDTH, 5.7), sharey=True)
    for ax, (name, values) in zip(axes, maps.items(), strict=True):
        ax.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
        ax.plot([-0.5, len(words) - 0.5], [-0.5, len(words) - 0.5], color="white", linewidth=1, linestyle=":")
        ax.set_title(name, fontsize=12, fontweight="normal")
        names = [token_label(word) for word in words]
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.set_xlabel("the token attended to (dotted: itself)")
    axes[0].set_ylabel("the token that attends")
    figure.colorbar(axes[0].images[0], ax=axes, shrink=0.7, label="share of its attention")
    style.headline(figure, title)
    return figure


def draw_scores(scores: Float[Tensor, " seq"], words: Sequence[str], at: int, title: str) -> Figure:
    """The scores of one query with every key: those of later words hollow, the highest that counts marked."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.0))
    best = int(scores[: at + 1].argmax())
    for place, score in enumerate(scores.tolist()):
        colour = style.MARKED if place == best else style.KEY
        fill = colour if place <= at else "white"
        shown = ax.bar(place, score, color=fill, edgecolor=colour if place <= at else "grey", width=0.7)
        ax.bar_label(shown, [f"{score:.0f}"], padding=2, fontsize=11)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.axvline(at + 0.5, color="grey", linewidth=1, linestyle="--")
    ax.text(at + 0.62, 1.0, "comes later", transform=ax.get_xaxis_transform(), va="top", color="dimgrey")
    ax.set_xticks(range(len(words)), [token_label(word) for word in words], rotation=45, ha="right")
    ax.set_ylabel("score, q · k")
    ax.margins(y=0.15)
    style.headline(figure, title)
    return figure


def draw_saturation(widths: Sequence[int], keys: Mapping[str, Sequence[float]], n_keys: int, title: str) -> Figure:
    """Over how many of `n_keys` random keys a random query spreads its weight, by the number of features."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.4))
    for (name, values), colour in style.with_looks(keys.items(), (style.WRONG, style.QUERY, style.RESIDUAL)):
        ax.plot(widths, values, "o-", color=colour)
        ax.annotate(
            name, (widths[-1], values[-1]), xytext=(8, 7), textcoords="offset points", va="center", color=colour
        )
    ax.axhline(n_keys, color="grey", linewidth=1, linestyle="--")
    ax.text(widths[0], n_keys, f"all {n_keys} alike", va="bottom", color="dimgrey")
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.set(xlim=(None, widths[-1] * 2.6), ylim=(0, 1.15 * n_keys), xlabel="features of a query, head_dim")
    ax.set_ylabel("keys in use, $e^H$")
    style.headline(figure, title)
    return figure


def draw_dice(
    steps: Sequence[int], losses: Mapping[str, Sequence[float]], levels: Mapping[str, float], title: str
) -> Figure:
    """The loss of models that learn to predict dice, by step of training; `levels` are what theory allows."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.4))
    for (name, values), colour in zip(losses.items(), (style.QUERY, style.WRONG), strict=True):
        ax.plot(steps, values, color=colour)
        ax.annotate(
            name, (steps[-1], values[-1]), xytext=(-2, 11), textcoords="offset points", ha="right", color=colour
        )
    for name, level in levels.items():
        ax.axhline(level, color="grey", linewidth=1, linestyle="--")
        below = level == max(levels.values())
        x, side = (0.4 * steps[-1], "top") if below else (steps[0] + 1, "bottom")
        ax.text(x, level, f"{name} {level:.2f}", va=side, color="dimgrey")
    ax.set(xlim=(steps[0], steps[-1]), ylim=(0, 1.2 * max(map(max, losses.values()))), xlabel="step of training")
    ax.set_ylabel("loss (nats per throw)")
    style.headline(figure, title)
    return figure


def draw_mixture(
    weights: Float[Tensor, " words"],
    values: Float[Tensor, "words head_dim"],
    words: Sequence[str],
    title: str,
) -> Figure:
    """Left the weights of one query; right each word's value times its weight, and under them their sum."""
    names = [token_label(word) for word in words]
    shares = weights[:, None] * values
    rows = torch.cat([shares, shares.sum(0, keepdim=True)])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.WIDTH, 1.5 + 0.36 * len(rows)), width_ratios=(1, 2.2), sharey=True
    )
    shown = left.barh(range(len(names)), weights.tolist(), color=style.QUERY, height=0.7)
    left.bar_label(shown, [f"{weight:.2f}" for weight in weights.tolist()], padding=3)
    left.set(xlim=(0, 1.25), xlabel="weight")
    limit = rows.abs().max().item()
    image = right.imshow(rows, cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    right.axhline(len(names) - 0.5, color=style.VALUE, linewidth=2)
    right.set_xlabel("feature of the value")
    left.set_yticks(range(len(rows)), [*names, "their sum, y"])
    left.set_ylim(len(rows) - 0.5, -0.5)
    figure.colorbar(image, ax=right, label="weight × value")
    style.headline(figure, title)
    return figure


def draw_two_needs(outputs: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """What one head and what two heads hand on, for two texts: rows = how many heads, columns = the texts."""
    texts = list(next(iter(outputs.values())))
    figure, axes = plt.subplots(len(outputs), len(texts), figsize=(style.WIDTH, 3.8), sharey=True)
    for row, (kind, by_text) in zip(axes, outputs.items(), strict=True):
        for ax, text in zip(row, texts, strict=True):
            values = by_text[text]
            shown = ax.bar(range(len(values)), values, color=style.VALUE, width=0.6)
            ax.bar_label(shown, [f"{value:g}" for value in values], padding=2)
            for start in range(0, len(values), 2):
                ax.text(
                    start + 0.5,
                    0.99,
                    f"head {start // 2}",
                    transform=ax.get_xaxis_transform(),
                    ha="center",
                    va="top",
                    color="dimgrey",
                )
                if start:
                    ax.axvline(start - 0.5, color="grey", linewidth=1, linestyle="--")
            ax.set(xlim=(-0.6, 3.6), yticks=[], xticks=range(len(values)))
            ax.margins(y=0.4)
        row[0].set_ylabel(kind)
    for ax, text in zip(axes[0], texts, strict=True):
        ax.set_title(text, fontsize=12, fontweight="normal")
    for ax in axes[-1]:
        ax.set_xlabel("feature handed on")
    style.headline(figure, title)
    return figure


def draw_cache(
    frames: Sequence[Float[Tensor, "length head_dim"]],
    counts: Sequence[int],
    tokens: Sequence[str],
    name: str,
    title: str,
) -> Figure:
    """The keys that one cache, `name`, holds after `counts` tokens; empty slots are blank."""
    figure, axes = plt.subplots(1, len(frames), figsize=(style.WIDTH, 4.6), sharey=True)
    limit = torch.stack(list(frames)).abs().max().item()
    for ax, keys, count in zip(axes, frames, counts, strict=True):
        blank = (torch.arange(len(keys)) >= count)[:, None]
        ax.imshow(keys.masked_fill(blank, torch.nan), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        ax.axhline(count - 0.5, color=style.KEY, linewidth=2)
        ax.set_title(f"after {count} tokens", fontsize=12, fontweight="normal")
        ax.set_xlabel("feature of the key")
    axes[0].set_yticks(range(len(tokens)), [token_label(token) for token in tokens])
    axes[0].set_ylabel(name)
    axes[0].tick_params(left=False)
    figure.colorbar(axes[0].images[0], ax=axes, label="number in the cache")
    style.headline(figure, title)
    return figure
