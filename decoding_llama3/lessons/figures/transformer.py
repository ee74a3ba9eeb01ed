"""Part 7 - the figures of the whole model: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style
from decoding_llama3.lessons.fonts import drawable


def draw_learning(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """What a model could do after each of its training steps; `rows` as in data/tiny-llama3/learning.csv.

    Above, the held-out text in bits per byte; below, the best previous-token and induction head, from 0 to 1.
    """
    figure, (text, heads) = plt.subplots(2, 1, figsize=(style.WIDTH, 6.0), sharex=True)
    steps = [max(row["step"], 10) for row in rows]  # a logarithmic axis has no 0
    text.plot(steps, [row["held_out"] for row in rows], color=style.PREDICTION)
    text.annotate(f"{rows[-1]['held_out']:.2f}", (steps[-1], rows[-1]["held_out"]), xytext=(6, 0),
                  textcoords="offset points", va="center")  # fmt: skip
    text.set_ylabel("held-out text\n(bits per byte)")
    text.set_ylim(0, None)
    for kind, colour, name, height in (
        ("previous", style.QUERY, "attends to the token before", 0.9),
        ("induction", style.FEED_FORWARD, "finds what followed the previous occurrence", 0.78),
    ):
        heads.plot(steps, [row[kind] for row in rows], color=colour)
        heads.text(0.02, height, name, color=colour, transform=heads.transAxes)
    heads.set_ylim(0, 1)
    heads.set_ylabel("best head\n(attention weight)")
    heads.set_xscale("log")
    heads.set_xlim(10, 1.15 * steps[-1])
    heads.set_xlabel("training step (logarithmic; the first point is step 0)")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_bits(bits: Mapping[str, float], title: str) -> Figure:
    """Bars: bits per byte of the same unseen book for each way of predicting it; the last is the model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.5 * len(bits) + 1.2))
    names = list(bits)
    colours = [style.RESIDUAL] * (len(names) - 1) + [style.PREDICTION]
    ax.barh(names, list(bits.values()), color=colours)
    for name, value in bits.items():
        ax.annotate(f"{value:.2f}", (value, name), xytext=(5, 0), textcoords="offset points", va="center")
    ax.invert_yaxis()
    ax.set(xlabel="bits per byte of a book that none has seen (8: knowing nothing)", title=title)
    return figure


def draw_depth_loss(losses: Sequence[float], title: str) -> Figure:
    """Loss, in nats per token, of the prediction read off the residual stream after each block."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    ax.plot(losses, color=style.PREDICTION, marker="o")
    shown = style.thinned(len(losses))
    for depth in shown:
        ax.annotate(
            f"{losses[depth]:.1f}", (depth, losses[depth]), xytext=(0, 9), textcoords="offset points", ha="center"
        )
    ax.set_xticks(shown, [f"block {i}" for i in shown])
    ax.set_ylim(0, 1.15 * max(losses))
    ax.set(xlabel="residual stream after", ylabel="loss (nats per token)", title=title)
    return figure


def draw_lens(
    words: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "depths seq"],
    tokens: Sequence[str],
    blocks: Sequence[int],
    title: str,
) -> Figure:
    """The word read off the residual stream after each of `blocks` (rows) after each token (columns)."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    image = ax.imshow(probabilities, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for depth, row in enumerate(words):
        for i, word in enumerate(row):
            ink = "white" if probabilities[depth, i] > 0.5 else "black"
            word = word if len(word) < 8 else f"{word[:6]}…"
            ax.text(i, depth, drawable(word.replace("\n", "⏎")), ha="center", va="center", fontsize=11, color=ink)
    ax.set_xticks(range(len(tokens)), map(drawable, tokens), rotation=35, ha="right")
    ax.set_yticks(range(len(words)), [f"block {i}" for i in blocks])
    ax.set(xlabel="after the token", ylabel="read off after", title=title)
    figure.colorbar(image, ax=ax, label="probability", location="bottom", shrink=0.4, aspect=30)
    return figure


def draw_stream(names: Sequence[str], stream: Sequence[float], writes: Sequence[float], title: str) -> Figure:
    """Length (root mean square) of the residual stream after each write, and of the write itself."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    x = range(len(names))
    colours = [
        style.QUERY if "attention" in n else style.FEED_FORWARD if "feed" in n else style.RESIDUAL for n in names
    ]
    ax.bar(x, writes, color=colours, width=0.7)
    ax.plot(x, stream, color=style.RESIDUAL, linewidth=3, marker="o")
    ax.annotate(
        "residual stream",
        (len(names) // 2, stream[len(names) // 2]),
        xytext=(-10, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color="#5F5F5F",
    )
    shown = style.thinned(len(names), 20)
    ax.set_xticks(shown, [_label(names[i]) for i in shown], rotation=40, ha="right")
    ax.text(0.01, 0.93, "attention writes", color=style.QUERY, transform=ax.transAxes)
    ax.text(0.01, 0.85, "feed-forward writes", color=style.FEED_FORWARD, transform=ax.transAxes)
    ax.set(ylabel="root mean square", title=title)
    return figure


def draw_contributions(names: Sequence[str], values: Sequence[float], word: str, title: str) -> Figure:
    """What each part added to the logit of `word`."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.6))
    colours = [
        style.QUERY if "attention" in n else style.FEED_FORWARD if "feed" in n else style.RESIDUAL for n in names
    ]
    y = range(len(names))
    ax.barh(y, values, color=colours)
    for i, value in enumerate(values):
        ax.annotate(
            f"{value:+.1f}",
            (value, i),
            xytext=(5 if value >= 0 else -5, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center",
            fontsize=11,
        )
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(list(y), [_label(n) for n in names])
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel=drawable(f"added to the logit of {word!r}"), title=title)
    return figure


def draw_surgery(
    deleted: Sequence[float], swapped: Float[Tensor, "layers layers"], blocks: Sequence[int], title: str
) -> Figure:
    """Rise of the loss when a block is left out, and when two of `blocks` change places."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.2), width_ratios=(1, 1.15))
    left.bar(range(len(deleted)), deleted, color=style.PREDICTION)
    for i, value in enumerate(deleted if len(deleted) <= 12 else ()):
        left.annotate(f"{value:+.1f}", (i, value), xytext=(0, 3), textcoords="offset points", ha="center")
    left.set(xlabel="block left out", ylabel="rise of the loss (nats per token)")
    image = right.imshow(swapped, cmap=style.SEQUENTIAL, vmin=0)
    for i in range(len(swapped)):
        for j in range(len(swapped)):
            if i != j:
                ink = "white" if swapped[i, j] < 0.6 * swapped.max() else "black"
                right.text(j, i, f"{swapped[i, j]:.1f}", ha="center", va="center", color=ink, fontsize=11)
    for set_ticks in (right.set_xticks, right.set_yticks):
        set_ticks(range(len(blocks)), [str(i) for i in blocks])
    right.set(xlabel="this block ...", ylabel="... changes places with this one")
    figure.colorbar(image, ax=right, label="rise of the loss (nats per token)", shrink=0.85)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_sampling(words: Sequence[str], variants: Mapping[str, Float[Tensor, " words"]], title: str) -> Figure:
    """The next-word distribution under several settings of the sampler."""
    figure, axes = plt.subplots(1, len(variants), figsize=(style.WIDTH, 3.8), sharey=True)
    for ax, (name, probabilities) in zip(axes, variants.items(), strict=True):
        ax.barh(range(len(words)), probabilities, color=style.PREDICTION)
        for i, p in enumerate(probabilities.tolist()):
            ax.annotate(f"{p:.0%}", (p, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=11)
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.set_xlim(0, 1.25 * max(v.max().item() for v in variants.values()))
        ax.set_xlabel("probability")
    axes[0].set_yticks(range(len(words)), [drawable(repr(word)) for word in words])
    axes[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def _label(name: str) -> str:
    """ "0.feed_forward", as `probe.residual_stream` names it, becomes "feed-forward 0"."""
    block, _, part = name.rpartition(".")
    return f"{part.replace('_', '-')} {block}".rstrip()


def draw_speed_ladder(rungs: Sequence[Mapping], title: str) -> Figure:
    """Bars: measured milliseconds per token of each way to decode, with a mark at what the limits predict.

    `rungs` have "name", "measured_seconds", "predicted_seconds" and "bound_by".
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 0.8 * len(rungs) + 1.4))
    for row, rung in enumerate(rungs):
        measured, predicted = 1e3 * rung["measured_seconds"], 1e3 * rung["predicted_seconds"]
        ax.barh(row, measured, color=style.NEUTRAL, height=0.6)
        ax.plot([predicted] * 2, [row - 0.38, row + 0.38], color=style.PREDICTION)
        text = f"{measured:.3g} ms; predicted {predicted:.3g}, bound by {rung['bound_by']}"
        ax.annotate(text, (measured, row), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(rungs)), [rung["name"] for rung in rungs])
    ax.invert_yaxis()
    ax.set_xscale("log")
    fastest, slowest = (1e3 * end(rung["measured_seconds"] for rung in rungs) for end in (min, max))
    ax.set_xlim(fastest / 10, 100 * slowest)  # room for the words
    ticks = [10.0**i for i in range(5) if fastest / 10 < 10**i < 3 * slowest]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="milliseconds per token, logarithmic (bar: measured, black line: predicted)", title=title)
    return figure


GROWTH_PANELS = {  # of draw_cost_growth: what grows, its axis, the factor and name of what it costs
    "context": ("a token, after a text", "tokens before it", 1e3, "milliseconds"),
    "depth": ("a token, in a deeper model", "blocks", 1e3, "milliseconds"),
    "prompt": ("a prompt", "tokens of it", 1, "seconds"),
    "cache": ("the cache", "tokens in it", 1e-6, "megabytes"),
}


def draw_cost_growth(points: Sequence[Mapping], title: str) -> Figure:
    """Measured dots and predicted lines: a token's time by context and depth, a prompt's, the cache's bytes.

    `points` have "against" (a key of GROWTH_PANELS), "x", "predicted" and "measured".
    """
    figure, axes = plt.subplots(2, 2, figsize=(style.WIDTH, 6.4))
    for ax, (against, (name, xlabel, factor, unit)) in zip(axes.flat, GROWTH_PANELS.items(), strict=True):
        these = [point for point in points if point["against"] == against]
        xs = [point["x"] for point in these]
        ax.plot(xs, [factor * point["predicted"] for point in these], color=style.PREDICTION, label="predicted")
        ax.plot(xs, [factor * point["measured"] for point in these], "o", color=style.QUERY, label="measured")
        ax.set(xlim=(0, None), ylim=(0, None), xlabel=xlabel, ylabel=unit)
        ax.set_title(name, fontsize=12, fontweight="normal")
        ax.xaxis.set_major_formatter("{x:,.0f}")
    axes[0, 0].legend(loc="lower right")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
