"""Part 2 - the figures of what fields do in trained models, and of memory: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from decoding_llama3.lessons import style

Losses = Mapping[float, float]  # by the value of a field


def draw_swept_fields(panels: Mapping[str, Mapping[str, tuple[float, Losses]]], title: str) -> Figure:
    """The rise of the loss by the value of fields that stand in no matrix: a row per model, a column per field.

    Each field comes with the value that the model was trained with, which is marked.
    """
    fields = next(iter(panels.values()))
    figure, axes = plt.subplots(
        len(panels), len(fields), figsize=(style.WIDTH, 2.1 + 2.1 * len(panels)), squeeze=False, sharey="row"
    )
    for row, (model, sweeps) in zip(axes, panels.items(), strict=True):
        for ax, (field, (trained, losses)) in zip(row, sweeps.items(), strict=True):
            values = sorted(losses)
            rise = [losses[value] - losses[trained] for value in values]
            ax.plot(values, rise, "o-", color=style.MODEL_COLOURS.get(model, "black"), markersize=5)
            ax.plot(trained, 0, "o", color=style.MARKED, markersize=10)
            ax.axhline(0, color=style.RESIDUAL, linewidth=1, linestyle="--", zorder=0)
            whole = isinstance(trained, int)
            ax.set_xscale("log", base=2 if whole else 10)
            if whole:
                ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
            named = f"{trained:,.0f}" if trained >= 1 else f"{trained:g}"
            ax.set_title(f"{field}, trained: {named}", fontsize=11, fontweight="normal")
        row[0].set_ylabel(f"{model}: loss, rise\n(nats per token)")
    style.headline(figure, title)
    return figure


def draw_learned_order(
    panels: Mapping[str, tuple[Sequence[str], Sequence[float], Sequence[float]]], title: str
) -> Figure:
    """Tokens in groups by when they were learned: their share of the text, and mean loss; a row per model."""
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(style.WIDTH, 1.2 + 2.0 * len(panels)), squeeze=False, sharey="row"
    )
    for row, (model, (names, shares, losses)) in zip(axes, panels.items(), strict=True):
        for ax, values, words in ((row[0], shares, [f"{s:.0%}" for s in shares]), (row[1], losses, None)):
            known = [0.0 if np.isnan(value) else value for value in values]
            ax.barh(list(names), known, color=style.NEUTRAL if ax is row[0] else style.MODEL_COLOURS.get(model))
            words = words or ["none in this text" if np.isnan(value) else f"{value:.1f}" for value in values]
            for y, (value, word) in enumerate(zip(known, words, strict=True)):
                ax.text(value, y, f" {word}", va="center", fontsize=11)
            ax.set_xlim(0, 1.2 * max(known))
        row[0].invert_yaxis()
        row[0].set_ylabel(f"{model}\npieces")
        row[0].xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes[-1][0].set_xlabel("share of the text's tokens")
    axes[-1][1].set_xlabel("mean loss (nats per token)")
    style.headline(figure, title)
    return figure


def draw_context_lengths(panels: Mapping[str, tuple[int, Losses]], title: str) -> Figure:
    """The loss of the same tokens with more and more text before them; what lies beyond training is shaded."""
    figure, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 3.6), squeeze=False)
    for ax, (model, (trained, losses)) in zip(axes[0], panels.items(), strict=True):
        x = range(len(losses))
        ax.plot(x, list(losses.values()), "o-", color=style.MODEL_COLOURS.get(model, "black"))
        ax.set_xticks(x, [f"{before:,}" for before in losses])
        within = [before <= trained for before in losses]
        if not all(within):
            ax.axvspan(sum(within) - 0.5, len(losses) - 0.5, color=style.WRONG, alpha=0.13, linewidth=0)
            ax.text(
                len(losses) - 0.55, 0.03, f"beyond {trained:,}", ha="right", va="bottom", color=style.WRONG,
                transform=ax.get_xaxis_transform(),
            )  # fmt: skip
        ax.set_xlim(-0.5, len(losses) - 0.5)
        ax.set_xlabel("tokens before")
        ax.set_title(f"{model}, max_seq_len {trained:,}", fontsize=12, fontweight="normal")
    axes[0][0].set_ylabel("loss (nats per token)")
    style.headline(figure, title)
    return figure


def draw_memory_need(
    formats: Mapping[str, float], lengths: Sequence[int], needs: Mapping[str, Sequence[float]], title: str
) -> Figure:
    """Left, GB of the weights in some number formats; right, GB of all that is needed, by the context.

    `needs` are stacked in their order; lines at 24 and 80 GB are the sizes of cards.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0), width_ratios=(2, 3))
    left.barh(list(formats), list(formats.values()), color=style.RESIDUAL)
    for y, value in enumerate(formats.values()):
        left.text(value, y, f" {value:.1f}", va="center")
    left.invert_yaxis()
    left.set(xlabel="weights (GB)", xlim=(0, 1.25 * max(formats.values())))
    colours = (style.RESIDUAL, style.KEY, style.FEED_FORWARD, style.PREDICTION)[: len(needs)]
    bottom, x = np.zeros(len(lengths)), np.arange(len(lengths))
    for (name, values), colour in zip(needs.items(), colours, strict=True):
        right.bar(x, values, bottom=bottom, color=colour, label=name, width=0.7)
        bottom = bottom + np.array(values)
    for card in (24, 80):
        right.axhline(card, color="black", linewidth=1, linestyle="--")
        right.text(-0.45, card, f"a card of {card} GB", va="bottom", fontsize=11)
    right.set_xticks(x, [f"{length:,}" for length in lengths])
    right.set(xlabel="tokens in the context", ylabel="GB", ylim=(0, max(150, 1.1 * bottom.max())))
    right.legend(loc="upper left")
    style.headline(figure, title)
    return figure


def draw_equal_work(
    groups: Mapping[str, Mapping[str, float]], pairs: Mapping[str, tuple[float, float]], title: str
) -> Figure:
    """Left, bits per byte of shapes that had the same work, in groups; right, two vocabularies after more work."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 4.0), width_ratios=(3, 2))
    y, names = 0.0, {}
    for (group, found), colour in style.with_looks(groups.items(), style.VARIANTS[1:]):
        for name, value in found.items():
            left.plot(value, y, "o", color=colour, markersize=8)
            left.text(value, y, f"  {value:.3f}", va="center", color=colour, fontsize=11)
            names[y] = name
            y += 1
        left.text(0.99, y - 0.5 - len(found) / 2, group, color=colour, ha="right", va="center", fontsize=11,
                  transform=left.get_yaxis_transform())  # fmt: skip
        y += 0.7
    left.set_yticks(list(names), list(names.values()))
    left.invert_yaxis()
    low, high = left.get_xlim()
    left.set(xlim=(low, high + 0.9 * (high - low)), xlabel="bits per byte, held-out text")
    _draw_pairs(right, pairs)
    style.headline(figure, title)
    return figure


def _draw_pairs(ax: Axes, pairs: Mapping[str, tuple[float, float]]) -> None:
    for (name, ends), colour in style.with_looks(pairs.items(), (style.RESIDUAL, "black")):
        ax.plot((0, 1), ends, "o-", color=colour)
        ax.text(1.06, ends[1], f"{name}:\n{ends[1] - ends[0]:+.3f}", color=colour, va="center")
    ax.set_xticks((0, 1), ["4,096", "8,192"])
    ax.margins(y=0.15)
    ax.set(xlim=(-0.15, 2.0), xlabel="vocab_size", ylabel="bits per byte")
