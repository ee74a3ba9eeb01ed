"""Part 2 - the figures of the configuration: arrays in, a figure out."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from decoding_llama3.lessons import style

_PART_COLOURS = {
    "embedding": style.RESIDUAL,
    "attention": style.QUERY,
    "feed-forward": style.FEED_FORWARD,
    "output": style.PREDICTION,
}


def draw_shares(shares: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Share of each part in the parameters, a bar per model; norms are too few to be seen."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for row, parts in enumerate(shares.values()):
        start = 0.0
        for part, share in parts.items():
            ax.barh(row, share, left=start, color=_PART_COLOURS[part], edgecolor="white")
            if share > 0.05:
                ax.text(start + share / 2, row, f"{share:.0%}", color="white", ha="center", va="center")
            if row == 0:
                ink = "dimgrey" if part == "embedding" else _PART_COLOURS[part]
                ax.text(start + share / 2, -0.45, part, color=ink, ha="center", va="bottom")
            start += share
    ax.set_yticks(range(len(shares)), list(shares))
    ax.set(xlim=(0, 1), ylim=(len(shares) - 0.5, -0.9), xlabel="share of the parameters")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_spectra(panels: Mapping[str, Mapping[str, Float[Tensor, " directions"]]], title: str) -> Figure:
    """How much of a matrix its strongest directions hold, a panel for each shape; "chance" is drawn in grey."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 4.2), sharey=True)
    colours = {"wk": style.KEY, "wq": style.QUERY, "wv": style.VALUE, "wo": style.GATE, "chance": "dimgrey"}
    for ax, (shape, spectra) in zip(axes, panels.items(), strict=True):
        for i, (name, held) in enumerate(spectra.items()):
            x = torch.arange(1, len(held) + 1) / len(held)
            ax.plot(x, held, color=colours[name], linestyle="--" if name == "chance" else "-")
            ax.text(0.95, 0.3 - 0.09 * i, name, color=colours[name], ha="right", transform=ax.transAxes)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="strongest directions, share of all")
        ax.set_title(shape, fontsize=12, fontweight="normal")
    axes[0].set_ylabel("share of the square sum")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_heads(
    rise: Float[Tensor, "blocks heads"], together: Sequence[float], blocks: Sequence[int], title: str
) -> Figure:
    """Rise of the loss without one query head (grid) and without all heads of a block (bars)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0), width_ratios=(2, 1), sharey=True)
    limit = max(0.1, rise.abs().max().item())
    image = left.imshow(rise, cmap=style.DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    for block, row in enumerate(rise.tolist() if rise.shape[1] <= 12 else []):  # more numbers find no room
        for head, value in enumerate(row):
            left.text(head, block, f"{round(value, 2) + 0:+.2f}", ha="center", va="center", fontsize=11)
    left.set_xticks(style.thinned(rise.shape[1]))
    left.set_yticks(range(len(rise)), [f"block {i}" for i in blocks])
    left.set_xlabel("without this one query head")
    figure.colorbar(image, ax=left, label="rise of the loss (nats per token)", location="left", pad=0.16)
    right.barh(range(len(together)), together, color=style.QUERY)
    for block, value in enumerate(together):
        right.text(max(value, 0), block, f" {value:+.2f}", va="center")
    right.set_xlim(min(0, *together), 1.35 * max(together))
    right.set_xlabel("without all of them")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_width(kept: Sequence[int], losses: Sequence[float], trained: float, title: str) -> Figure:
    """Loss when only some directions of the last residual stream are kept."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.plot(kept, losses, "o-", color=style.RESIDUAL)
    ax.axhline(trained, color=style.PREDICTION, linestyle="--", linewidth=1)
    ax.text(kept[0], trained, "all of them", va="top")
    ax.set_xscale("log", base=2)
    ax.set_xticks(kept, [str(k) for k in kept])
    ax.set_ylim(trained - 0.12 * (losses[0] - trained), None)
    ax.set(xlabel="directions of the residual stream that are kept", ylabel="loss (nats per token)", title=title)
    return figure


def draw_fields(sweeps: Mapping[str, Mapping[float, float]], trained: Mapping[str, float], title: str) -> Figure:
    """Loss of the same weights under other values of fields that stand in no matrix, a panel per field.

    `sweeps` gives each field's losses by value; the values with which the model was `trained` are marked.
    """
    figure, axes = plt.subplots(1, len(sweeps), figsize=(style.WIDTH, 3.8), sharey=True)
    for ax, (field, losses) in zip(axes, sweeps.items(), strict=True):
        values, at = list(losses), trained[field]
        ax.plot(values, list(losses.values()), "o-", color=style.RESIDUAL)
        ax.plot(at, losses[at], "o", color=style.PREDICTION, markersize=10)
        ax.annotate(
            f"trained: {at:,.0f}" if at >= 1 else f"trained: {at:g}",
            (at, losses[at]), (0, -12), textcoords="offset points", ha="center", va="top",
        )  # fmt: skip
        ax.set_xscale("log", base=2 if isinstance(at, int) else 10)
        if isinstance(at, int):
            ax.set_xticks(values, [str(value) for value in values])
        ax.set_xlabel(field)
    low, high = min(min(losses.values()) for losses in sweeps.values()), axes[0].get_ylim()[1]
    axes[0].set_ylim(low - 0.15 * (high - low), high)
    axes[0].set_ylabel("loss (nats per token)")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_context(context: Sequence[int], losses: Sequence[float], trained: int, title: str) -> Figure:
    """Loss of the same tokens with more and more text before them, and the length of context trained on."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.8))
    ax.plot(range(len(context)), losses, "o-", color=style.PREDICTION)
    ax.set_xticks(range(len(context)), [f"{tokens:,}" for tokens in context])
    within = [tokens <= trained for tokens in context]
    if not all(within):
        ax.axvspan(sum(within) - 0.5, len(context) - 0.5, color=style.KEY, alpha=0.2, linewidth=0)
        ax.text(len(context) - 0.55, min(losses), f"beyond {trained:,}", ha="right", va="bottom")
    ax.set_xlim(-0.5, len(context) - 0.5)
    ax.set(xlabel="tokens before the window", ylabel="loss (nats per token)", title=title)
    return figure


def draw_vocabulary(
    borders: Sequence[int], shares: Sequence[float], losses: Sequence[float], title: str
) -> Figure:
    """Tokens in groups by id, the most frequent first: share of the text, and mean loss of each group."""
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0))
    names = [f"{low:,} to {high - 1:,}" for low, high in itertools.pairwise(borders)]
    for ax, values, colour, label in (
        (axes[0], [100 * share for share in shares], style.NEUTRAL, "share of the text (%)"),
        (axes[1], losses, style.PREDICTION, "loss (nats per token)"),
    ):
        ax.barh(names, values, color=colour)
        for row, value in enumerate(values):
            ax.text(value, row, f" {value:.0f}" if ax is axes[0] else f" {value:.1f}", va="center")
        ax.invert_yaxis()
        ax.set_xlim(0, 1.15 * max(values))
        ax.set_xlabel(label)
    axes[0].set_ylabel("token ids")
    axes[1].set_yticks([])
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def draw_memory(weights: Mapping[str, float], caches: Mapping[str, float], title: str) -> Figure:
    """Gigabytes of weights and of one user's cache, in bfloat16, a bar per model."""
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.6))
    names = list(weights)
    ax.barh(names, list(weights.values()), color=style.RESIDUAL)
    ax.barh(names, list(caches.values()), left=list(weights.values()), color=style.KEY)
    for row, name in enumerate(names):
        ax.text(weights[name] + caches[name], row, f" {weights[name]:.1f} + {caches[name]:.1f}", va="center")
    ax.set_xscale("log")
    ax.set_xlim(1, 4 * max(weights.values()))
    ax.invert_yaxis()
    ax.text(0.98, 0.95, "weights", color="dimgrey", ha="right", transform=ax.transAxes)
    ax.text(0.98, 0.88, "cache of one user", color=style.KEY, ha="right", transform=ax.transAxes)
    ax.set(xlabel="gigabytes in bfloat16 (log scale)", title=title)
    return figure


def draw_shapes(runs: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Bits per byte that short trainings reached, by parameters; `runs` as in data/tiny-llama3/shapes.csv.

    A colour for each budget of FLOPs; the names say blocks x dim, and the vocabulary where it is not 4,096.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.4))
    beside = {3: (-6, -10), 9: (-6, 3), 12: (-22, -18)}  # where the names would lie on each other
    budgets = sorted({round(run["flops"], -13) for run in runs})
    colours = (style.RESIDUAL, style.QUERY, style.PREDICTION)[: len(budgets)]
    for budget, colour in zip(budgets, colours, strict=True):
        those = [run for run in runs if round(run["flops"], -13) == budget]
        ax.plot(
            [run["parameters"] / 1e6 for run in those], [run["bits_per_byte"] for run in those], "o", color=colour
        )
        for run in those:
            name = f"{run['layers']:.0f} x {run['dim']:.0f}"
            name += f", {run['vocab_size']:,.0f}" if run["vocab_size"] != 4096 else ""
            ax.annotate(
                name,
                (run["parameters"] / 1e6, run["bits_per_byte"]),
                xytext=beside.get(int(run["layers"]), (6, 3)),
                textcoords="offset points",
                ha="right" if run["layers"] in (3, 9) else "left",
                color=colour,
                fontsize=11,
            )
        ax.plot([], [], "o", color=colour, label=f"{budget:.1g} FLOPs")
    ax.set(xlabel="parameters (millions)", ylabel="held-out text (bits per byte)", title=title)
    ax.legend(loc="lower right")
    return figure
