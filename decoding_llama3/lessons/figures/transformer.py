"""Part 7 - the figures of how the model is put together: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable

WRITERS = {"embedding": style.RESIDUAL, "attention": style.QUERY, "feed-forward": style.FEED_FORWARD}


def draw_wirings(losses: Mapping[str, float], blind: float, title: str) -> Figure:
    """Bars: the loss of the same weights under several wirings, the trained one first; a line at `blind`."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.5 * len(losses) + 1.3))
    colours = [style.PREDICTION] + [style.WRONG] * (len(losses) - 1)
    shown = ax.barh(list(losses), list(losses.values()), color=colours, height=0.65)
    ax.bar_label(shown, [f"{loss:.1f}" for loss in losses.values()], padding=4)
    ax.axvline(blind, color=style.RESIDUAL, linestyle="--", linewidth=1.5)
    ax.text(blind, -0.6, f"knowing nothing: {blind:.1f}", color="#5F5F5F", ha="center", va="bottom")
    ax.invert_yaxis()
    ax.set(xlabel="loss (nats per token)", xlim=(0, 1.12 * max(blind, *losses.values())))
    style.headline(figure, title)
    return figure


def draw_shape_ladder(
    rungs: Sequence[tuple[str, str, Sequence[Sequence[int]]]], names: Sequence[str], blocks: range, title: str
) -> Figure:
    """A bar for each tensor on the way, as wide as the logarithm of its numbers per token; a column per model.

    A rung has a name, a key of `_LADDER_COLOURS` and a shape per model; those in `blocks` are framed.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(style.WIDTH, 0.36 * len(rungs) + 1.2), sharey=True)
    widest = max(_per_token(shape) for _, _, shapes in rungs for shape in shapes)
    for column, (ax, name) in enumerate(zip(axes, names, strict=True)):
        for row, (_, kind, shapes) in enumerate(rungs):
            shape = shapes[column]
            width = 0.34 + 0.66 * torch.tensor(_per_token(shape)).log().div(torch.tensor(widest).log()).item()
            ax.barh(row, width, left=-width / 2, color=_LADDER_COLOURS[kind], height=0.78)
            ink = "black" if kind in ("key", "value") else "white"
            text = "(" + ", ".join(f"{n:,}" for n in shape) + ("," if len(shape) == 1 else "") + ")"
            ax.text(0, row, text, color=ink, ha="center", va="center", fontsize=11)
        low, high = blocks[0] - 0.5, blocks[-1] + 0.5
        ax.plot([-0.54, -0.54, 0.54, 0.54, -0.54], [low, high, high, low, low], color="#5F5F5F", linewidth=1.2)
        ax.set(xlim=(-0.58, 0.58), ylim=(len(rungs) - 0.4, -0.6), xticks=[])
        ax.set_title(name, fontsize=12, fontweight="normal", loc="center")
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(rungs)), [label for label, _, _ in rungs])
    style.headline(figure, title)
    return figure


_LADDER_COLOURS = {
    "token": style.NEUTRAL,
    "stream": style.RESIDUAL,
    "norm": style.NORM,
    "query": style.QUERY,
    "key": style.KEY,
    "value": style.VALUE,
    "feed-forward": style.FEED_FORWARD,
    "logits": style.PREDICTION,
}


def _per_token(shape: Sequence[int]) -> int:
    """The last number of a shape, as wide as a token is there."""
    return shape[-1] if len(shape) > 1 else 1


def draw_by_hand(
    stages: Mapping[str, Float[Tensor, "tokens features"]], words: Sequence[str], said: Sequence[str], title: str
) -> Figure:
    """The stream of a model made by hand: a row for each token, a square for each feature, in stages.

    Features come in three groups of one per word; a square has the colour of the part that wrote it.
    """
    figure, axes = plt.subplots(1, len(stages), figsize=(style.WIDTH, 3.1), sharey=True)
    groups, n = ("I am", "before me", "next"), len(words)
    for ax, (name, x) in zip(axes, stages.items(), strict=True):
        for row, features in enumerate(x.tolist()):
            for i, value in enumerate(features):
                colour = list(WRITERS.values())[i // n] if value else "#F2F2F2"
                ax.add_patch(Rectangle((i - 0.45, row - 0.4), 0.9, 0.8, color=colour))
                if value:
                    ax.text(i, row, f"{value:g}", color="white", ha="center", va="center", fontweight="bold")
        for g, group in enumerate(groups):
            ax.text(g * n + (n - 1) / 2, -0.62, group, ha="center", va="bottom", fontsize=11)
            if g:
                ax.axvline(g * n - 0.5, color="#5F5F5F", linewidth=1)
        ax.set(xlim=(-0.55, 3 * n - 0.45), ylim=(len(x) - 0.5, -1.1))
        ax.set_xticks(range(3 * n), list(words) * 3, rotation=90)
        ax.set_title(name, fontsize=12, fontweight="normal", loc="center")
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(said)), words[: len(said)])
    last = axes[-1].twinx()
    last.set(ylim=axes[-1].get_ylim())
    last.set_yticks(range(len(said)), [f"says {word}" for word in said])
    last.spines[["left", "bottom"]].set_visible(False)
    last.tick_params(length=0)
    style.headline(figure, title)
    return figure


def draw_walk(
    path: Float[Tensor, "places 2"],
    worth: Float[Tensor, " places"],
    parts: Sequence[str],
    word: str,
    title: str,
    note: str = "",
) -> Figure:
    """Left, the stream of one token as a walk in a plane, to one scale: towards `word`, and aside; right, `worth`.

    `parts` name the writes, "attention 0", "feed-forward 0", ...; the path begins where the embedding puts it.
    `worth` is the word's logit above the mean, read off at each place of the path.
    """
    figure, (ax, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.6), width_ratios=(3, 2))
    colours = [WRITERS[part.rpartition(" ")[0]] for part in parts]
    _draw_path(ax, path, parts, colours)
    ax.set(xlabel=drawable(f"in the direction of {word!r}"), ylabel="aside: where it moves most")
    right.barh(range(len(worth)), worth.tolist(), color=[style.RESIDUAL, *colours], height=0.75)
    right.set_yticks(range(len(worth)), ["embedding", *parts] if len(parts) < 20 else [""] * len(worth))
    right.invert_yaxis()
    right.set_xlabel(drawable(f"logit of {word!r} read off\nafter each part, above the mean"), fontsize=11)
    if note:
        figure.supxlabel(note, fontsize=11)
    style.headline(figure, title)
    return figure


def _draw_path(ax: Axes, path: Float[Tensor, "places 2"], parts: Sequence[str], colours: Sequence[str]) -> None:
    """The lines of a walk, to one scale, with an arrowhead and numbers for the longest."""
    longest = int(path.diff(dim=0).norm(dim=-1).argmax())
    for i, colour in enumerate(colours):
        ax.plot(*path[i : i + 2].T, color=colour, linewidth=2.4)
    head = {"arrowstyle": "-|>", "color": colours[longest], "linewidth": 2.4, "shrinkA": 0, "shrinkB": 0}
    (x0, y0), (x1, y1) = path[longest : longest + 2].tolist()
    ax.annotate("", (x1, y1), (x0, y0), arrowprops=head)
    ax.plot(*path.T, ".", color=style.RESIDUAL, markersize=5, zorder=3)
    towards, aside = path.diff(dim=0)[longest].tolist()
    words = f"{parts[longest]}:\n{towards:.0f} towards, {abs(aside):.0f} aside"
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    ax.annotate(
        words, middle, (10, 0), textcoords="offset points", color=colours[longest], va="center", fontsize=11
    )
    start = (path[0, 0].item(), path[0, 1].item())
    ax.annotate("embedding", start, (6, 6), textcoords="offset points", color="#5F5F5F", va="bottom")
    ax.axhline(0, color="lightgrey", linewidth=1, zorder=0)
    ax.axvline(0, color="lightgrey", linewidth=1, zorder=0)
    low, high = path.min(dim=0).values, path.max(dim=0).values
    reach = 1.15 * (high - low).max().clamp(min=1e-9).item()
    middle = ((low + high) / 2).tolist()
    ax.set_xlim(middle[0] - 0.6 * reach, middle[0] + 0.85 * reach)
    ax.set_ylim(middle[1] - 0.55 * reach, middle[1] + 0.55 * reach)
    ax.set_aspect("equal")


def draw_logits(
    logits: Float[Tensor, " vocab"], words: Sequence[str], probabilities: Sequence[float], title: str
) -> Figure:
    """Left, how many tokens have which logit, the likeliest marked; right, what softmax makes of the largest."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.6), width_ratios=(3, 2))
    counts, edges, _ = left.hist(logits.numpy(), bins=60, color=style.RESIDUAL)
    tallest = int(counts.argmax())
    note = f"{int(counts[tallest]):,} tokens\nin this bar"
    left.annotate(
        note, (edges[tallest], counts[tallest]), (-6, 0), textcoords="offset points", ha="right", va="top",
        fontsize=11, color="#5F5F5F",
    )  # fmt: skip
    top = logits.max().item()
    left.plot([top], [0.7], "v", color=style.MARKED, markersize=9, clip_on=False)
    left.annotate(
        f"{drawable(words[0])}: {top:.1f}", (top, 0.9), (0, 60), textcoords="offset points", color=style.MARKED,
        ha="right", arrowprops={"arrowstyle": "-", "color": style.MARKED},
    )  # fmt: skip
    left.set_yscale("log")
    left.set(xlabel="logit", ylabel="tokens of the vocabulary")
    _draw_word_bars(right, words, probabilities)
    style.headline(figure, title)
    return figure


def draw_sampling(words: Sequence[str], variants: Mapping[str, Sequence[float]], title: str) -> Figure:
    """The next word's probabilities: as the model has them, grey, and under settings of the sampler, black.

    The last of `words` stands for all others.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.5 * len(words) + 1.3))
    for (name, probabilities), colour, up in zip(
        variants.items(), (style.RESIDUAL, style.PREDICTION), (-0.2, 0.2), strict=True
    ):
        places = [i + up for i in range(len(words))]
        shown = ax.barh(places, probabilities, color=colour, height=0.38, label=name)
        ax.bar_label(shown, [f"{p:.0%}" for p in probabilities], padding=3, fontsize=11)
    ax.set_yticks(range(len(words)), [drawable(word) for word in words])
    ax.set(xlim=(0, 1.08), ylim=(len(words) - 0.4, -0.6), xlabel="probability")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    style.headline(figure, title)
    return figure


def _draw_word_bars(ax: Axes, words: Sequence[str], probabilities: Sequence[float]) -> None:
    shown = ax.barh(range(len(words)), probabilities, color=style.PREDICTION, height=0.7)
    ax.bar_label(shown, [f"{p:.0%}" for p in probabilities], padding=3)
    ax.set_yticks(range(len(words)), [drawable(word) for word in words])
    ax.set_ylim(len(words) - 0.4, -0.6)
    ax.set_xlim(0, 1.2 * max(probabilities))
    ax.set_xlabel("probability")


def draw_lesson(losses: Sequence[float], blind: float, counted: float, held_out: float, title: str) -> Figure:
    """The loss of each training step, in nats per character, with a mean of neighbours and three levels."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    values, n = torch.tensor(losses), len(losses)
    mean = torch.stack([values[max(0, i - 10) : i + 11].mean() for i in range(n)])
    ax.plot(values, color=style.RESIDUAL, linewidth=0.8, alpha=0.7, label="each step, on what it reads")
    ax.plot(mean, color=style.PREDICTION, label="mean of 21 steps")
    for level, name in ((blind, "knowing nothing"), (counted, "how often each character comes")):
        ax.axhline(level, color=style.RESIDUAL, linestyle="--", linewidth=1.5)
        ax.text(n, level, f"{name}: {level:.2f}", color="#5F5F5F", ha="right", va="bottom")
    ax.plot(n, held_out, "o", color=style.MARKED, markersize=8, clip_on=False)
    note = f"text that it never saw: {held_out:.2f}"
    ax.annotate(note, (n, held_out), (-8, 12), textcoords="offset points", color=style.MARKED, ha="right")
    ax.set(xlabel="training step", ylabel="loss (nats per character)", xlim=(0, 1.01 * n))
    ax.set_ylim(0, 1.12 * max(blind, *losses))
    ax.legend(loc="lower left")
    style.headline(figure, title)
    return figure
