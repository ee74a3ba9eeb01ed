"""Part 5 - the figures of attention: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import token_label


def draw_steps(
    scores: Float[Tensor, "seq seq"],
    scaled: Float[Tensor, "seq seq"],
    weights: Float[Tensor, "seq seq"],
    tokens: Sequence[str],
    name: str,
) -> Figure:
    """One head three times: raw scores, scaled scores with the future hidden, weights."""
    figure, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 4.4), sharey=True)
    limit = scores.abs().max().item()
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    frames = [
        (scores, style.DIVERGING, -limit, limit, "1. scores, q · k"),
        (scaled.masked_fill(hidden, torch.nan), style.DIVERGING, -limit, limit, "2. scaled and masked"),
        (weights.masked_fill(hidden, torch.nan), style.SEQUENTIAL, 0, 1, "3. weights, rows sum to 1"),
    ]
    for ax, (values, colours, low, high, title) in zip(axes, frames, strict=True):
        image = ax.imshow(values, cmap=colours, vmin=low, vmax=high)
        ax.set_title(title, fontsize=12, fontweight="normal")
        _token_axes(ax, tokens)
        figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.9, location="top")
    axes[0].set_ylabel("the token that attends (query)")
    axes[1].set_xlabel("the token attended to (key)")
    row, column = divmod(int(weights[1:].argmax()), len(tokens))
    figure.suptitle(
        f"{name}: the largest weight is {weights[1 + row, column]:.2f}, "
        f"from {token_label(tokens[1 + row])} to {token_label(tokens[column])}",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return figure


def draw_maps(maps: Mapping[str, Float[Tensor, "seq seq"]], tokens: Sequence[str], title: str) -> Figure:
    """Attention maps of four heads, named by the keys of `maps`: row = the token that attends."""
    figure, axes = plt.subplots(2, 2, figsize=(style.WIDTH, 9.2), sharex=True, sharey=True)
    for ax, (name, weights) in zip(axes.flat, maps.items(), strict=True):
        hidden = torch.ones_like(weights, dtype=torch.bool).triu(1)
        ax.imshow(weights.masked_fill(hidden, torch.nan), cmap=style.SEQUENTIAL, vmin=0, vmax=1)
        ax.set_title(name, fontsize=11, fontweight="normal")
        _token_axes(ax, tokens)
    figure.colorbar(axes.flat[0].images[0], ax=axes, shrink=0.5, label="attention weight (each row sums to 1)")
    figure.supylabel("the token that attends (query)", fontsize=12)
    figure.supxlabel("the token attended to (key)", fontsize=12)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_head_scores(scores: Mapping[str, Float[Tensor, "layers heads"]], title: str) -> Figure:
    """A square for every head, in a panel per kind of place: its mean weight there."""
    figure, axes = plt.subplots(1, len(scores), figsize=(style.WIDTH, 3.6), sharey=True)
    for ax, (kind, values) in zip(axes, scores.items(), strict=True):
        ax.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
        ax.set_title(kind, fontsize=12, fontweight="normal")
        ax.set_xticks(style.thinned(values.shape[1]))
        ax.set_yticks(style.thinned(values.shape[0]))
        ax.set_xlabel("query head")
        layer, head = divmod(int(values.argmax()), values.shape[1])
        dark = values[layer, head] < 0.6
        ax.text(
            head,
            layer,
            f"{values[layer, head]:.2f}",
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=11,
        )
    axes[0].set_ylabel("block")
    figure.colorbar(axes[0].images[0], ax=axes, label="mean attention weight")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_repeat(weights: Float[Tensor, "seq seq"], period: int, title: str) -> Figure:
    """One head's attention on random tokens repeated after `period`: a stripe where it finds what comes next."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 5.6))
    hidden = torch.ones_like(weights, dtype=torch.bool).triu(1)
    image = ax.imshow(weights.masked_fill(hidden, torch.nan), cmap=style.SEQUENTIAL, vmin=0, vmax=1)
    last = len(weights) - 1
    ax.axhline(period + 0.5, color=style.FEED_FORWARD, linewidth=1, linestyle="--")
    ax.text(last, period - 1, "the second copy starts here", ha="right", va="bottom", color=style.FEED_FORWARD)
    ax.annotate(
        "the token after the\nprevious occurrence",
        (last - period + 1, last),
        xytext=(last - period / 3, last - period / 2),
        color=style.PREDICTION,
        va="center",
        ha="left",
        arrowprops={"arrowstyle": "->", "color": style.PREDICTION},
    )
    ax.set_xlabel("position attended to (key)")
    ax.set_ylabel("position that attends (query)")
    figure.colorbar(image, ax=ax, label="attention weight", shrink=0.8)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_kv_overlap(
    keys: Float[Tensor, " layers"], values: Float[Tensor, " layers"], same: float, chance: float
) -> Figure:
    """How much of what one KV head reads another reads too, by block, with both ends of the scale marked."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    layers = range(len(keys))
    for overlaps, colour, name in ((keys, style.KEY, "keys"), (values, style.VALUE, "values")):
        ax.plot(layers, overlaps, "o-", color=colour)
        ax.annotate(
            name, (layers[-1], overlaps[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=colour
        )
    ax.axhline(same, color=style.RESIDUAL, linewidth=1)
    ax.text(0, same - 0.02, "two copies of one head", va="top", color="dimgrey")
    ax.axhline(chance, color=style.RESIDUAL, linewidth=1, linestyle="--")
    ax.text(0, chance - 0.02, f"chance, {chance:.3f}", va="top", color="dimgrey")
    ax.set_ylim(0, 1.05 * same)
    ax.set_xlim(-0.2, len(keys) - 0.4)
    ax.set_xticks(style.thinned(len(layers), 20))
    ax.set_xlabel("block")
    ax.set_ylabel("overlap of two KV heads")
    most = torch.cat((keys, values)).max()
    ax.set_title(f"Two KV heads share {most:.0%} of what they read, at most")
    return figure


def draw_spread(scaled: Float[Tensor, " heads"], unscaled: Float[Tensor, " heads"], divisor: str) -> Figure:
    """Over how many tokens each head spreads its weight, with and without the scale; heads sorted."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.2))
    order = scaled.argsort()
    ranks = torch.arange(len(order))
    ax.vlines(ranks, unscaled[order], scaled[order], color="lightgrey", linewidth=1.5, zorder=1)
    for spreads, colour, name, height in (
        (scaled, style.PREDICTION, f"scores divided by {divisor}", 0.92),
        (unscaled, style.NEUTRAL, "raw scores", 0.84),
    ):
        ax.scatter(ranks, spreads[order], color=colour, s=28, zorder=2)
        ax.text(0.02, height, name, color=colour, transform=ax.transAxes)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlim(-1, len(order))
    ax.set_xticks([0, len(order) - 1], ["narrowest", "broadest"])
    ax.set_xlabel(f"the {len(order)} heads, sorted")
    ax.set_ylabel("tokens attended to (e to the entropy)")
    ax.set_title(
        f"Without the scale, the median head attends to {unscaled.median():.1f} tokens, "
        f"not to {scaled.median():.1f}"
    )
    return figure


def draw_cache(
    frames: Sequence[Float[Tensor, "length head_dim"]],
    counts: Sequence[int],
    tokens: Sequence[str],
    bytes_per_token: int,
) -> Figure:
    """The key store of one KV head after `counts` tokens; slots not yet written are blank."""
    figure, axes = plt.subplots(1, len(frames), figsize=(style.WIDTH, 4.6), sharey=True)
    limit = torch.stack(list(frames)).abs().max().item()
    for ax, keys, count in zip(axes, frames, counts, strict=True):
        blank = (torch.arange(len(keys)) >= count)[:, None]
        ax.imshow(keys.masked_fill(blank, torch.nan), cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        ax.axhline(count - 0.5, color=style.KEY)
        ax.set_title(f"{count} tokens: {count * bytes_per_token:,} bytes", fontsize=12, fontweight="normal")
        ax.set_xlabel("feature of the key")
    slots = [token_label(token) for token in tokens] + [""] * (len(frames[0]) - len(tokens))
    axes[0].set_yticks(range(len(slots)), slots)
    axes[0].tick_params(left=False)
    figure.colorbar(axes[0].images[0], ax=axes, label="stored value")
    figure.suptitle(
        f"Each token adds one row that never changes again: {bytes_per_token:,} bytes in all blocks",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    return figure


def _token_axes(ax: Axes, tokens: Sequence[str]) -> None:
    names = [token_label(token) for token in tokens]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)


def draw_forming(curves: Mapping[str, Sequence], title: str) -> Figure:
    """Share of letters predicted by step, a line per model; `curves` as `induction.train_copier` yields them."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    steps = (0,)
    for (name, moments), colour in zip(curves.items(), (style.RESIDUAL, style.QUERY), strict=True):
        steps, shares = zip(*((moment.step, 100 * moment.accuracy) for moment in moments), strict=True)
        ax.plot(steps, shares, color=colour)
        ax.annotate(name, (steps[-1], shares[-1]), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set(xlabel="step of training", ylabel="predicted (per cent)", ylim=(0, 104), title=title)
    ax.set_xlim(0, 1.12 * steps[-1])
    return figure
